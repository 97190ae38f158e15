"""API keys: asked for on every route but health, in OpenAI's words, and renewed while the server runs."""

import hmac
import os
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import openai
import pytest
from codetune_api.contracts import DesiredAdapter
from codetune_server.authenticating import ApiKeys
from codetune_server.settings import ServerSettings
from mounted_secret import mount

if TYPE_CHECKING:
    from unit.server.conftest import Pod

    Make = Callable[..., DesiredAdapter]
    Start = Callable[..., Awaitable[Pod]]

KEY, OTHER = "sk-first", "sk-second"


@pytest.fixture
def settings(settings: ServerSettings, tmp_path: Path) -> ServerSettings:
    """A pod whose Secret holds two keys."""
    mount(tmp_path / "keys", {"team": f"{KEY}\n{OTHER}\n"})
    return replace(settings, api_keys=tmp_path / "keys")


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


ROUTES = [
    ("GET", "/v1/models"),
    ("GET", "/v1/models/base"),
    ("POST", "/v1/completions"),
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/load_lora_adapter"),
    ("GET", "/metrics"),
    ("GET", "/version"),
    ("POST", "/tokenize"),
    ("GET", "/openapi.json"),
    ("OPTIONS", "/v1/models"),
]


async def test_what_only_looks_like_a_browsers_question_needs_a_key(pod: "Pod") -> None:
    asking = {"Access-Control-Request-Method": "GET"}  # without an origin vLLM takes it as any other request
    assert (await pod.client.options("/metrics", headers=asking)).status_code == 401


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_every_route_but_health_asks_for_a_key(method: str, path: str, pod: "Pod") -> None:
    answer = await pod.client.request(method, path)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    error = answer.json()["error"]
    assert (error["type"], error["code"], error["param"]) == ("invalid_request_error", "invalid_api_key", None)
    assert KEY not in answer.text
    reached = {path for path, _ in pod.vllm.calls} - {"/health", "/v1/models"}  # which the pod itself asks at its start
    assert not reached
    assert (await pod.client.request(method, path, headers=bearer(OTHER))).status_code != 401


@pytest.mark.parametrize("path", ["/health", "/ping", "/codetune/ready"])
async def test_the_kubelet_needs_no_key(path: str, pod: "Pod") -> None:
    assert (await pod.client.get(path)).status_code in (200, 503)


async def test_a_key_is_not_the_operators_token_and_the_token_is_no_key(pod: "Pod", make_adapter: "Make") -> None:
    await pod.put(make_adapter("tuned"))  # with the token
    for path in ("/codetune/adapters", "/codetune/drain"):
        assert (await pod.client.put(path, json={}, headers=bearer(KEY))).status_code == 401
    assert (await pod.client.get("/v1/models", headers=bearer("a-secret-token"))).status_code == 401


@pytest.mark.parametrize(
    "header",
    [
        pytest.param(KEY, id="no scheme"),
        pytest.param(f"Basic {KEY}", id="another scheme"),
        pytest.param("Bearer", id="no key"),
        pytest.param("Bearer ", id="an empty key"),
        pytest.param(f"Bearer {KEY[:-1]}", id="half a key"),
        pytest.param(f"Bearer {KEY}\\n{OTHER}", id="both keys in one"),
        pytest.param(f"Bearer {KEY}x", id="a key and more"),
    ],
)
async def test_what_is_no_key_is_refused(header: str, pod: "Pod") -> None:
    answer = await pod.client.get("/v1/models", headers={"Authorization": header})
    assert answer.status_code == 401


OWN_HEADER = [
    pytest.param(200, {"X-Api-Key": KEY}, id="the first key"),
    pytest.param(200, {"x-api-key": f"  {OTHER} "}, id="another key, another case, spaces"),
    pytest.param(200, {"X-Api-Key": KEY, "Authorization": ""}, id="beside an Authorization that is empty"),
    pytest.param(401, {"X-Api-Key": ""}, id="no key"),
    pytest.param(401, {"X-Api-Key": f"Bearer {KEY}"}, id="with a scheme"),
    pytest.param(401, {"X-Api-Key": f"{KEY}x"}, id="a key and more"),
    pytest.param(401, {"X-Api-Key": KEY, **bearer("sk-wrong")}, id="beside a wrong Authorization, which counts"),
]


@pytest.mark.parametrize(("status", "headers"), OWN_HEADER)
async def test_a_key_may_come_in_a_header_that_proxies_pass_on(
    status: int, headers: dict[str, str], pod: "Pod"
) -> None:
    """The API server's service proxy keeps Authorization to itself."""
    assert (await pod.client.get("/v1/models", headers=headers)).status_code == status


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_key_in_that_header_does_not_reach_vllm(method: str, pod: "Pod") -> None:
    content = {"model": "base", "prompt": "x"} if method == "POST" else None
    path = "/v1/completions" if method == "POST" else "/metrics"
    before = len(pod.vllm.headers)
    answer = await pod.client.request(method, path, json=content, headers={"X-Api-Key": KEY, "X-Other": "1"})
    assert answer.status_code == 200
    (seen,) = pod.vllm.headers[before:]
    assert b"x-api-key" not in seen
    assert seen[b"x-other"] == b"1"


async def test_that_header_does_not_carry_the_operators_token(pod: "Pod") -> None:
    assert (await pod.client.get("/codetune/adapters", headers={"X-Api-Key": "a-secret-token"})).status_code == 401


async def test_a_browsers_question_beforehand_carries_no_key(pod: "Pod") -> None:
    headers = {"Origin": "https://ide.example", "Access-Control-Request-Method": "POST"}
    assert (await pod.client.options("/v1/completions", headers=headers)).status_code != 401


async def test_keys_are_renewed_without_a_restart(pod: "Pod", settings: ServerSettings) -> None:
    assert settings.api_keys
    assert (await pod.client.get("/v1/models", headers=bearer(KEY))).status_code == 200
    mount(settings.api_keys, {"team": "sk-third\n"})
    assert (await pod.client.get("/v1/models", headers=bearer(KEY))).status_code == 401
    assert (await pod.client.get("/v1/models", headers=bearer("sk-third"))).status_code == 200


@pytest.mark.parametrize(
    ("expected", "data"),
    [
        pytest.param({"a"}, {"x": "a"}, id="one"),
        pytest.param({"a", "b"}, {"x": "a\r\n\n  b \n"}, id="lines of one file"),
        pytest.param({"a", "b"}, {"x": "a\n", ".y": "b"}, id="files"),
        pytest.param(set(), {"x": "\n \n"}, id="only white space"),
        pytest.param(set(), {}, id="an empty Secret"),
    ],
)
def test_every_line_of_every_file_is_a_key(expected: set[str], data: dict[str, str], tmp_path: Path) -> None:
    mount(tmp_path / "keys", data)
    keys = ApiKeys(tmp_path / "keys")
    assert {key for key in ("", "a", "b", "c", " ", "..data") if keys.admit(f"Bearer {key}")} == expected


def test_plain_files_are_read_again_too(tmp_path: Path) -> None:
    (tmp_path / "team").write_text(KEY)
    keys = ApiKeys(tmp_path)
    assert keys.admit(f"Bearer {KEY}")
    (tmp_path / "team").write_text(f"{OTHER}-longer")
    assert not keys.admit(f"Bearer {KEY}")
    (tmp_path / "more").write_text(KEY)
    assert keys.admit(f"Bearer {KEY}")


def test_where_the_keys_cannot_be_read_nobody_is_admitted(tmp_path: Path) -> None:
    mount(tmp_path / "keys", {"x": KEY})
    keys = ApiKeys(tmp_path / "keys")
    assert keys.admit(f"Bearer {KEY}")
    os.rename(tmp_path / "keys", tmp_path / "gone")
    assert not keys.admit(f"Bearer {KEY}")
    os.rename(tmp_path / "gone", tmp_path / "keys")
    assert keys.admit(f"Bearer {KEY}")


def test_a_key_is_compared_with_all_of_them_in_constant_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mount(tmp_path / "keys", {"x": "\n".join(f"sk-{i}" for i in range(5))})
    compared: list[tuple[int, int]] = []
    compare = hmac.compare_digest

    def note(first: bytes, second: bytes) -> bool:
        compared.append((len(first), len(second)))
        return compare(first, second)

    monkeypatch.setattr(hmac, "compare_digest", note)
    assert ApiKeys(tmp_path / "keys").admit("Bearer sk-0")
    assert compared == [(32, 32)] * 5


async def test_a_web_socket_needs_a_key_too(pod: "Pod") -> None:
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    await pod.app({"type": "websocket", "path": "/v1/realtime", "headers": []}, receive, send)
    assert [message["type"] for message in sent] == ["websocket.close"]
    assert ("/v1/realtime", "") not in pod.vllm.calls


@pytest.fixture
async def client(pod: "Pod", make_adapter: "Make") -> Callable[[str], openai.AsyncOpenAI]:
    """OpenAI's own client with a key."""
    await pod.put(make_adapter("tuned"))

    def make(key: str) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(base_url="http://pod/v1", api_key=key, http_client=pod.client, max_retries=0)

    return make


async def test_openais_client_knows_the_answer(client: Callable[[str], openai.AsyncOpenAI]) -> None:
    with pytest.raises(openai.AuthenticationError, match="asks for an API key"):
        await client("sk-wrong").models.list()
    assert [model.id async for model in client(KEY).models.list()] == ["base", "tuned"]
    done = await client(OTHER).completions.create(model="tuned", prompt="x")
    assert done.model == "tuned"
