"""Secrets are found by precise patterns, told by rule and line, and never shown."""

import base64
import json
import random
import string

import pytest
from codetune_trainer.scan.rules.secrets import describe, find_secrets, redact

# Put together here, so that no scanner of this repository takes them for real ones.
LETTERS = "aB3dE5gH7jK9mN1pQ4rS6tU8vW0xY2zC4fL6nP8qR0sT1"


def make_token(header: object, payload: object) -> str:
    """A JSON web token."""
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in (header, payload)]
    return ".".join([*parts, LETTERS[:43]])


SAMPLES = {
    "private-key": "-----BEGIN RSA PRIVATE KEY-----\nMIIE\nabcd\n-----END RSA PRIVATE KEY-----",
    "aws-access-key": "AKIA" + "Z7VRSQ5TJN2XMPLQ",
    "github-token": "ghp_" + LETTERS[:36],
    "gitlab-token": "glpat-" + LETTERS[:20],
    "slack-token": "xoxb-" + "123456789012-" + LETTERS[:24],
    "slack-webhook": "https://hooks.slack.com/services/" + "T00000000/B00000000/" + LETTERS[:24],
    "google-api-key": "AIza" + LETTERS[:35],
    "google-oauth-secret": "GOCSPX-" + LETTERS[:28],
    "stripe-key": "sk_live_" + LETTERS[:24],
    "openai-key": "sk-proj-" + LETTERS[:24] + "T3BlbkFJ" + LETTERS[:24],
    "anthropic-key": "sk-ant-" + "api03-" + LETTERS + LETTERS,
    "huggingface-token": "hf_" + "aBcDeFgHiJkLmNoPqRsTuVwXyZaBcDeFgH",
    "npm-token": "npm_" + LETTERS[:36],
    "pypi-token": "pypi-AgEIcHlwaS5vcmc" + LETTERS + LETTERS[:10],
    "sendgrid-key": "SG." + LETTERS[:22] + "." + (LETTERS + LETTERS)[:43],
    "azure-storage-key": "AccountKey=" + (LETTERS + LETTERS)[:86] + "==",
    "json-web-token": make_token({"alg": "RS256", "kid": "1"}, {"sub": "someone"}),
    "url-password": "postgres://app:q8Wz3Lk9@db.internal:5432/shop",
}


@pytest.mark.parametrize("rule", SAMPLES)
def test_a_known_form_is_found_by_its_rule_and_line(rule: str) -> None:
    (secret,) = find_secrets(f"one\ntwo = {SAMPLES[rule]}\nthree\n")
    assert (secret.rule, secret.line) == (rule, 2)


@pytest.mark.parametrize(
    "line",
    [
        pytest.param('password = "kT7#mQ2$vX9!"', id="python"),
        pytest.param('"db_password": "kT7#mQ2$vX9!",', id="json"),
        pytest.param("API_KEY='9f8e7d6c5b4a39281706f5e4d3c2b1a0'", id="shell"),
        pytest.param('clientSecret := "q8Wz3Lk9Xv2Np5Rt7Yb1"', id="go"),
        pytest.param("'auth_token' => 'q8Wz3Lk9Xv2Np5Rt7Yb1',", id="php"),
        pytest.param('password: str = "kT7#mQ2$vX9!"', id="python-with-a-type"),
        pytest.param('api_key: Optional[str] = "q8Wz3Lk9Xv2Np5Rt7Yb1"', id="python-with-a-longer-type"),
        pytest.param("const apiKey: string = 'q8Wz3Lk9Xv2Np5Rt7Yb1'", id="typescript-with-a-type"),
        pytest.param('const API_KEY: &str = "q8Wz3Lk9Xv2Np5Rt7Yb1";', id="rust-with-a-type"),
        pytest.param("export DB_PASSWORD=kT7#mQ2vX9!z", id="shell-without-quotes"),
        pytest.param("cd /x && export A=b DB_PASSWORD=q8Wz3Lk9Xv2N; run", id="shell-second-of-two"),
        pytest.param("ENV API_KEY q8Wz3Lk9Xv2Np5Rt7Yb1", id="dockerfile-by-a-space"),
        pytest.param("ENV API_KEY=q8Wz3Lk9Xv2Np5Rt7Yb1", id="dockerfile"),
        pytest.param("ENV A=b \\\n    API_KEY=q8Wz3Lk9Xv2Np5Rt7Yb1 \\\n    C=d", id="dockerfile-of-several-lines"),
        pytest.param("token = 'latest8Zk39vLmT2x'", id="test-within-a-word"),
        pytest.param('secret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYzQ9bLp3dRt"', id="slashes"),
    ],
)
def test_a_random_value_that_is_assigned_to_a_telling_name_is_found(line: str) -> None:
    (secret,) = find_secrets(line)
    assert secret.rule == "assigned-secret"


@pytest.mark.parametrize(
    "line",
    [
        pytest.param('password = "password"', id="a-word"),
        pytest.param('password = "change-me-123456"', id="placeholder"),
        pytest.param('token = os.environ["SERVICE_TOKEN_2"]', id="environment"),
        pytest.param('API_KEY = "your-api-key-here-1"', id="your-key-here"),
        pytest.param('secret = "${VAULT_SECRET_1234}"', id="template"),
        pytest.param('token_url = "https://example.com/oauth2/token1"', id="address"),
        pytest.param('key = "aaaaaaaaaaaa1111"', id="not-random"),
        pytest.param("digest = '9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08'", id="digest"),
        pytest.param("AKIAIOSFODNN7", id="too-short-for-aws"),
        pytest.param("tokenizer = AutoTokenizer.from_pretrained('hf_internal')", id="tokenizer"),
        pytest.param("-----BEGIN CERTIFICATE-----", id="certificate"),
        pytest.param("-----BEGIN PUBLIC KEY-----", id="public-key"),
        pytest.param('token_path = "/var/run/secrets/kubernetes.io/v1/Token1"', id="path"),
        pytest.param('secret_type = "application/vnd.Acme.v1Beta+json"', id="media-type"),
        pytest.param("token = 'test-8Zk39vLmT2x'", id="test-as-a-word"),
        pytest.param("token = 'myTest8Zk39vLmT2x'", id="test-as-a-hump"),
        pytest.param("export API_KEY=$(cat /run/key12345)", id="shell-command"),
        pytest.param("export API_KEY=${OTHER_KEY_12345}", id="shell-variable"),
        pytest.param("api_key=q8Wz3Lk9Xv2Np5Rt7Yb1", id="no-quotes-and-no-export"),
        pytest.param("export API_KEY q8Wz3Lk9Xv2Np5Rt7Yb1", id="two-names-exported"),
        pytest.param("def f(token: str, name='q8Wz3Lk9Xv2Np5Rt7Yb1')", id="another-parameter"),
        pytest.param("postgres://user:password@host/db", id="url-password"),
        pytest.param("postgres://user:p%40ssw0rd1@host/db", id="url-password-in-disguise"),
        pytest.param("postgres://user:${PW}@host/db", id="url-variable"),
        pytest.param("postgres://user:$PASS1234@host/db", id="url-short-variable"),
        pytest.param("postgres://user:<pw>@host/db", id="url-brackets"),
        pytest.param("postgres://user:xxx@host/db xxxx1xxxx", id="url-crosses"),
        pytest.param("postgres://scott:tiger@host/db", id="url-of-letters-only"),
        pytest.param("postgres://app2024:app2024@host/db", id="url-password-is-the-user"),
        pytest.param("https://host:8080/x@y", id="url-port"),
        pytest.param("https://one:123,two:80a@host", id="url-of-several-hosts"),
        pytest.param(make_token({"typ": "JWT"}, {"sub": "someone"}), id="token-without-alg"),
        pytest.param(make_token(["alg"], {"sub": "someone"}), id="token-whose-header-is-a-list"),
        pytest.param("eyJ" + LETTERS[:20] + "." + LETTERS + "." + LETTERS, id="token-whose-header-is-no-json"),
        pytest.param(
            "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0." + LETTERS[:43], id="token-of-every-documentation"
        ),
    ],
)
def test_what_only_looks_like_a_secret_is_let_through(line: str) -> None:
    assert find_secrets(line) == []


@pytest.mark.parametrize(
    "line",
    [
        'aws_secret_access_key = "{}"',
        "export AWS_SECRET_ACCESS_KEY={}",
        "ENV AWS_SECRET_ACCESS_KEY {}",
        'SECRET_KEY: Final[str] = "{}"',
    ],
)
def test_hardly_any_secret_key_of_aws_is_overlooked(line: str) -> None:
    chance = random.Random(7)
    letters = string.ascii_letters + string.digits + "+/"
    keys = ["".join(chance.choices(letters, k=40)) for _ in range(1000)]
    assert sum(not find_secrets(line.format(key)) for key in keys) <= 10


def test_of_a_url_only_the_password_is_redacted() -> None:
    text = "url = 'postgres://app:q8Wz3Lk9@db/shop'"
    assert redact(text, find_secrets(text)) == "url = 'postgres://app:REDACTED@db/shop'"


def test_all_secrets_are_redacted_and_lines_keep_their_numbers() -> None:
    text = f"a\n{SAMPLES['private-key']}\nb {SAMPLES['github-token']} c\nd = 1\n"
    redacted = redact(text, find_secrets(text))
    assert redacted == "a\nREDACTED\n\n\n\nb REDACTED c\nd = 1\n"
    assert find_secrets(redacted) == []


def test_a_private_key_without_its_end_is_redacted_to_the_end() -> None:
    text = "x\n-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXk\n"
    assert "b3BlbnNz" not in redact(text, find_secrets(text))


def test_a_description_shows_no_value() -> None:
    text = "\n".join(SAMPLES.values())
    said = describe(find_secrets(text))
    assert said.startswith("private-key in line 1, aws-access-key in line 5, ")
    assert said.endswith(f"and {len(SAMPLES) - 3} more")
    assert not any(value in said for value in SAMPLES.values())


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("-----BEGIN " * 20_000, id="begins-without-end"),
        pytest.param("-----BEGIN " + "A " * 100_000, id="words-without-key"),
        pytest.param("password" * 60_000, id="names-without-value"),
        pytest.param("token = '" * 40_000, id="quotes-without-end"),
        pytest.param("SG." * 100_000, id="dots"),
        pytest.param("xoxb-" + "a" * 400_000, id="one-long-token"),
    ],
)
@pytest.mark.timeout(20)
def test_no_text_makes_the_search_slow(text: str) -> None:
    assert len(find_secrets(text)) <= 1


@pytest.mark.parametrize("lead", ["", "İ" * 50, "é€😀" * 50], ids=["plain", "grows-in-lower-case", "wide"])
@pytest.mark.parametrize("name", ["API_KEY", "apiKey", "api-key", "SECRET_TOKEN", "db_Password", "client_secret_key"])
def test_a_telling_name_is_found_once_whatever_stands_before_it(lead: str, name: str) -> None:
    value = "q8Wz3Lk9Xv2Np5Rt7Yb1"
    text = f"{lead}\n{name} = '{value}'\n"
    (secret,) = find_secrets(text)
    assert text[secret.start : secret.end] == value
    assert secret.line == 2
