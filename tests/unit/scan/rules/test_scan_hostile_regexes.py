"""Texts made to make a search run for ever: a megabyte for each regular expression of the scan, and each ends.

What a test has is the time of a whole scan of dozens of such files, so one that is not linear does not get through.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from codetune_api.project import FileRules, Holdout
from codetune_trainer.scan.records import Found
from codetune_trainer.scan.rules.judge import Judge, Origin
from codetune_trainer.scan.rules.patterns import Patterns
from codetune_trainer.scan.rules.secrets import find_secrets, redact

if TYPE_CHECKING:
    from unit.scan.conftest import Scanned

pytestmark = pytest.mark.timeout(20)
MEGABYTE = 2**20
JUDGE = Judge(FileRules(include=["*"], secrets="Redact"), Holdout())


def fill(*pieces: str, size: int = MEGABYTE) -> str:
    """The pieces in turn, again and again."""
    return ("".join(pieces) * (size // len("".join(pieces)) + 1))[:size]


SECRETS = [
    pytest.param(fill("a="), id="assignments"),
    pytest.param(fill(" "), id="spaces"),
    pytest.param(fill("\n"), id="line-breaks"),
    pytest.param(fill("'"), id="quotes"),
    pytest.param(fill('"'), id="double-quotes"),
    pytest.param(fill("\\"), id="backslashes"),
    pytest.param(fill("password"), id="a-telling-word"),
    pytest.param(fill("password="), id="a-telling-word-assigned"),
    pytest.param(fill("password='"), id="a-telling-word-and-a-quote"),
    pytest.param(fill("password = '", "x" * 300), id="values-that-never-end"),
    pytest.param("password" + fill(" "), id="a-telling-word-and-spaces"),
    pytest.param("password='" + fill("a"), id="one-value-that-never-ends"),
    pytest.param(fill("api_key", "-" * 50), id="dashes-behind-a-telling-word"),
    pytest.param(fill('token"]', " " * 9, ":"), id="brackets-and-spaces"),
    pytest.param(fill("api_key: 'q8Zr2Lk9Tw5Xv1Bn'\n"), id="forty-thousand-secrets"),
    pytest.param(fill("\u0130", "secret"), id="letters-that-grow-when-lowered"),
    pytest.param("PRIVATE KEY" + fill("-----BEGIN A "), id="key-heads-without-a-kind"),
    pytest.param("PRIVATE KEY-----BEGIN " + fill("A "), id="a-key-head-of-many-words"),
    pytest.param(fill("-----BEGIN PRIVATE KEY-----\n"), id="keys-that-never-end"),
    pytest.param(fill("-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY "), id="keys-that-nearly-end"),
    pytest.param(fill("AKIA"), id="aws"),
    pytest.param(fill("ghp_"), id="github"),
    pytest.param("ghp_" + fill("a"), id="a-github-token-too-long"),
    pytest.param("github_pat_" + fill("a"), id="a-new-github-token-too-long"),
    pytest.param(fill("glpat-"), id="gitlab"),
    pytest.param(fill("xoxb-"), id="slack"),
    pytest.param(fill("https://hooks.slack.com/services/T"), id="slack-hooks"),
    pytest.param("https://hooks.slack.com/services/T" + fill("A"), id="a-slack-hook-too-long"),
    pytest.param(fill("AIza"), id="google"),
    pytest.param(fill("GOCSPX-"), id="google-oauth"),
    pytest.param(fill("sk_live_"), id="stripe"),
    pytest.param("T3BlbkFJ" + fill("sk-"), id="openai-heads"),
    pytest.param(fill("sk-proj-", "a" * 20, "T3BlbkFJ"), id="openai-without-tails"),
    pytest.param(fill("sk-ant-a"), id="anthropic"),
    pytest.param("sk-ant-" + fill("a"), id="an-anthropic-key-too-long"),
    pytest.param(fill("hf_"), id="hugging-face"),
    pytest.param(fill("npm_"), id="npm"),
    pytest.param(fill("pypi-AgEIcHlwaS5vcmc"), id="pypi"),
    pytest.param(fill("SG.", "a" * 22, "."), id="sendgrid"),
    pytest.param(fill("AccountKey="), id="azure"),
    pytest.param(fill("eyJ"), id="web-tokens-begun"),
    pytest.param(fill("eyJ-", "a" * 2000), id="web-tokens-of-one-part"),
    pytest.param(fill("eyJhbGciOiAxfQ."), id="web-tokens-of-heads"),
    pytest.param(fill(" eyJhbGciOiAxfQ.", "a" * 9000), id="web-tokens-too-long"),
    pytest.param(fill("eyJ" + "W1tb" * 500, ".aaaaaaaa.", "a" * 20, " "), id="web-tokens-of-brackets"),
    pytest.param(fill("://"), id="urls-without-host"),
    pytest.param(fill("://a:"), id="urls-begun"),
    pytest.param(fill("://", "a" * 64, ":", "b1" * 64), id="urls-without-end"),
    pytest.param(fill("://a:q8Zr2Lk9@b "), id="urls-with-passwords"),
    pytest.param(fill("export token=q8Zr2Lk9Tw5Xv1Bn"), id="exports-in-a-row"),
    pytest.param("ENV " + fill("token=q8Zr2Lk9Tw5Xv1Bn "), id="one-instruction"),
    pytest.param("ENV " + fill("\\\n", "a=\\\\ token=q8Zr2Lk9Tw5Xv1Bn "), id="instructions-of-lines"),
    pytest.param(fill("ENV ", " " * 150, "token q8Zr2Lk9Tw5Xv1Bn"), id="blanks-within-an-instruction"),
    pytest.param(fill("token: ", "a" * 60), id="types-without-value"),
]


@pytest.mark.parametrize("text", SECRETS)
def test_a_search_for_secrets_ends(text: str) -> None:
    found = find_secrets(text)
    assert all(before.end <= after.start for before, after in pairwise(found))
    assert redact(text, found).count("\n") == text.count("\n")
    assert all(secret.line == 1 + text.count("\n", 0, secret.start) for secret in found[:5] + found[-5:])


CONTENTS = [
    pytest.param("a.h", fill(" \t") + "a", id="header-of-blanks"),
    pytest.param("a.h", fill("\n \t") + "a", id="header-of-blank-lines"),
    pytest.param("a.h", fill("#  include  <"), id="header-of-includes"),
    pytest.param("a.h", fill("template template\n"), id="header-of-templates"),
    pytest.param("a.m", fill("@", "interfac"), id="objective-c"),
    pytest.param("a.pl", fill("a("), id="prolog-brackets"),
    pytest.param("a.pl", "a" + fill("(") + fill(")"), id="prolog-nested-brackets"),
    pytest.param("a.pl", "a(" + fill(") "), id="prolog-bracket-ends"),
    pytest.param("a.pl", fill("a\n\n\n"), id="prolog-lines"),
    pytest.param("a.pro", "pro " + fill(" "), id="idl-spaces"),
    pytest.param("a.pro", fill("pro\n"), id="idl-words"),
    pytest.param("a.pro", "function " + fill("a"), id="idl-one-word"),
    pytest.param("a.ts", fill("\n\t ") + "a", id="typescript-blanks"),
    pytest.param("a.ts", fill("a = 1; "), id="typescript-one-line"),
    pytest.param("a.v", fill("From a "), id="rocq-from"),
    pytest.param("a.v", fill("From a\n"), id="rocq-from-lines"),
    pytest.param("a.fs", fill(": "), id="forth"),
    pytest.param("a.inc", fill("<?"), id="php"),
    pytest.param("run", "#!" + fill("/"), id="interpreter-of-slashes"),
    pytest.param("run", "#!" + fill("/env -"), id="interpreter-of-options"),
    pytest.param("run", "#!env " + fill("-a "), id="interpreter-behind-options"),
    pytest.param("run", "#!" + fill(" "), id="interpreter-of-spaces"),
    pytest.param("a.py", fill("# generated do not "), id="generated-comment"),
    pytest.param("a.py", fill("/") + "generated", id="generated-slashes"),
    pytest.param("a.py", "/" + fill("*") + "generated", id="generated-stars"),
    pytest.param("a.py", fill(";") + "generated", id="generated-semicolons"),
    pytest.param("a.py", fill("# do not edit do not modify "), id="generated-never-said"),
    pytest.param("a.js", fill("a;"), id="minified"),
]


@pytest.mark.parametrize(("name", "text"), CONTENTS)
def test_judging_a_file_ends(name: str, text: str) -> None:
    content = text.encode()
    judged, data = JUDGE.judge(Origin("disk"), Found(name, b"", len(content)), content)
    assert (judged.reason, len(data) > 0) == ("", True)


LONG_NAMES = [
    pytest.param("jquery" + "." * 249, id="dots"),
    pytest.param("jquery-1" + ".-" * 120 + ".js", id="a-version-without-end"),
    pytest.param("_pb2" * 63, id="generated-endings"),
    pytest.param("moc_" + "a.cpp" * 50, id="qt"),
    pytest.param(".min" * 63, id="minified-endings"),
    pytest.param("a." * 127, id="a-hundred-endings"),
    pytest.param("*[" * 127, id="wildcards"),
]


@pytest.mark.parametrize("name", LONG_NAMES)
def test_judging_a_name_ends(name: str) -> None:
    judged, _ = JUDGE.judge(Origin("disk"), Found(f"{'d/' * 100}{name}", b"", 6), b"a = 1\n")
    assert judged.overrode or not judged.reason


PATTERNS = [
    pytest.param("**/a/**/a/**/b", id="three-any-folders"),
    pytest.param("**/a/**/a/**/a/**/a/**/b", id="five-any-folders"),
    pytest.param("**/*a*a*a*a*b", id="stars-in-a-name"),
    pytest.param("*a*a*a*a*a*a*a*b", id="more-stars-in-a-name"),
    pytest.param("a/**/**/**/**/b", id="any-folders-in-a-row"),
    pytest.param("[a-z]*[a-z]*[a-z]*[a-z]*!", id="classes-and-stars"),
]
PATHS = ["a/" * 2000 + "c", "a" * 255, f"{'a' * 40}/" * 90 + "c", "c/" * 2000 + "c"]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_matching_a_pattern_against_hostile_paths_ends(pattern: str) -> None:
    patterns = Patterns([pattern], "files.exclude")
    assert [patterns.find(path) for path in PATHS] == [None] * len(PATHS)


def test_a_folder_of_such_files_is_scanned_in_one_go(scan_one: "Callable[..., Scanned]") -> None:
    files = {f"{index:02}{case.values[0]}": str(case.values[1])[:400_000] for index, case in enumerate(CONTENTS)}
    files |= {f"s{index:02}.py": str(case.values[0])[:400_000] for index, case in enumerate(SECRETS)}
    scanned = scan_one({**files, "keep.py": "a = 1\n"}, workers=1, files={"maxLineLength": 100_000})
    assert len(scanned.report) == len(files) + 1
    assert scanned.verdicts()["keep.py"] == "train"
