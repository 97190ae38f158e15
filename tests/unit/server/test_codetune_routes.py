"""`/codetune/*`: who may ask, what is answered, and that a bad desired set changes nothing."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from codetune_api.contracts import DesiredAdapter
from codetune_server.admitting import TokenFile
from codetune_server.routes import VllmRoutes
from codetune_server.settings import ServerSettings

if TYPE_CHECKING:
    from unit.server.conftest import Pod

    Make = Callable[..., DesiredAdapter]

TOKEN = "a-secret-token"
AUTHORIZED = {"Authorization": f"Bearer {TOKEN}"}


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({}, id="nothing"),
        pytest.param({"Authorization": TOKEN}, id="no scheme"),
        pytest.param({"Authorization": f"Basic {TOKEN}"}, id="another scheme"),
        pytest.param({"Authorization": "Bearer "}, id="an empty token"),
        pytest.param({"Authorization": f"Bearer {TOKEN[:-1]}"}, id="half a token"),
        pytest.param({"Authorization": "Bearer sëcret".encode("latin-1")}, id="letters beyond ASCII"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "PUT"])
async def test_only_the_token_opens_the_adapters(
    method: str, headers: dict[str, str | bytes], pod: "Pod", make_adapter: "Make"
) -> None:
    raw = {name: value if isinstance(value, bytes) else value.encode() for name, value in headers.items()}
    answer = await pod.client.request(
        method,
        "/codetune/adapters",
        json={"adapters": [make_adapter("tuned").to_wire()]},
        headers=[(name.encode(), value) for name, value in raw.items()],
    )
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert TOKEN not in answer.text
    assert (await pod.report()).adapters == []


def test_the_token_is_read_again_when_its_file_changes(settings: ServerSettings) -> None:
    assert settings.token_file
    token = TokenFile(settings.token_file)
    assert token.admits(f"Bearer {TOKEN}")
    beside = settings.token_file.with_suffix(".new")
    beside.write_text("another")
    os.replace(beside, settings.token_file)
    assert not token.admits(f"Bearer {TOKEN}")
    assert token.admits("bearer another")


@pytest.mark.parametrize("content", ["", " \n", None], ids=["empty", "white space", "no file"])
def test_without_a_token_nobody_is_admitted(content: str | None, settings: ServerSettings) -> None:
    assert settings.token_file
    settings.token_file.unlink()
    if content is not None:
        settings.token_file.write_text(content)
    assert not TokenFile(settings.token_file).admits("Bearer ")
    assert not TokenFile(settings.token_file).admits(f"Bearer {TOKEN}")
    assert not TokenFile(None).admits("Bearer ")


@pytest.mark.parametrize(
    ("query", "body", "status", "sentence"),
    [
        pytest.param("", b"{", 400, "Invalid JSON", id="not JSON"),
        pytest.param("", b'{"adapters": [{"name": "x"}]}', 400, "adapters.0.path: Field required", id="no path"),
        pytest.param("", b'{"adaptors": []}', 400, "adaptors: Extra inputs", id="unknown field"),
        pytest.param("", b'{"adapters":[{"name":"x","path":"x","digest":"md5:1"}]}', 400, "digest", id="bad digest"),
        pytest.param(
            "", b'{"adapters":[{"name":"x","path":"a"},{"name":"x","path":"b"}]}', 400, "x stands there", id="twice"
        ),
        pytest.param("?wait=long", b"{}", 400, "long", id="wait a word"),
        pytest.param("?wait=-1", b"{}", 400, "between 0 and 600", id="wait negative"),
        pytest.param("?wait=nan", b"{}", 400, "between 0 and 600", id="wait not a number"),
        pytest.param("", b" " * (1 << 20) + b"{}", 413, "larger than", id="too large"),
    ],
)
async def test_a_bad_desired_set_is_refused_and_changes_nothing(
    query: str, body: bytes, status: int, sentence: str, pod: "Pod", make_adapter: "Make"
) -> None:
    await pod.put(make_adapter("tuned"))
    answer = await pod.client.put(f"/codetune/adapters{query}", content=body, headers=AUTHORIZED)
    assert answer.status_code == status
    assert sentence in answer.json()["error"]["message"]
    assert (await pod.report()).models == ["base", "tuned"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("DELETE", "/codetune/adapters", 405),
        ("POST", "/codetune/ready", 404),
        ("GET", "/codetune/", 404),
        ("GET", "/codetune/x", 404),
    ],
)
async def test_other_methods_and_routes_are_refused(method: str, path: str, status: int, pod: "Pod") -> None:
    assert (await pod.client.request(method, path, headers=AUTHORIZED)).status_code == status


async def test_a_mounted_set_that_cannot_be_read_holds_the_pod_back_until_a_put(
    start_pod: "Callable[..., Awaitable[Pod]]", make_adapter: "Make"
) -> None:
    pod = await start_pod('{"adapters": 7}')
    answer = await pod.client.get("/codetune/ready")
    assert answer.status_code == 503
    assert "adapters.json" in answer.json()["message"]
    await pod.put(make_adapter("tuned"))
    assert (await pod.client.get("/codetune/ready")).json() == {"ready": True, "message": ""}


def broken(*_: object) -> None:
    raise ZeroDivisionError("a bug")


async def test_an_adapter_task_that_dies_takes_the_pod_out_of_its_service(
    pod: "Pod", monkeypatch: pytest.MonkeyPatch
) -> None:
    await pod.put()
    monkeypatch.setattr("codetune_server.versions.VersionTable.unused", broken)
    await pod.put(wait=0)
    async with asyncio.timeout(5):
        while (answer := await pod.client.get("/codetune/ready")).status_code != 503:
            await asyncio.sleep(0.001)
    assert "ZeroDivisionError: a bug" in answer.json()["message"]


async def test_an_adapter_whose_check_breaks_is_refused_by_name_and_the_others_serve(
    pod: "Pod", monkeypatch: pytest.MonkeyPatch, make_adapter: "Make"
) -> None:
    good = make_adapter("good")
    await pod.put(good)
    monkeypatch.setattr("codetune_server.verifying.highest_rank", broken)
    report = await pod.put(make_adapter("odd", content=3), good)
    assert [(state.name, state.phase, state.reason) for state in report.adapters] == [
        ("odd", "Failed", "InvalidAdapter"),
        ("good", "Failed", "InvalidAdapter"),
    ]
    assert "ZeroDivisionError: a bug" in report.adapters[0].message
    assert report.models == ["base", "good"]  # what serves goes on
    assert (await pod.client.get("/codetune/ready")).status_code == 200


async def test_vllms_api_key_is_used_for_the_calls_inside(settings: ServerSettings) -> None:
    seen: list[bytes] = []

    async def app(scope: dict[str, list[tuple[bytes, bytes]]], receive: object, send: object) -> None:
        seen.append(dict(scope["headers"]).get(b"authorization", b""))

    keyed = replace(settings, api_key="open-sesame")
    await VllmRoutes(app, {}, keyed.api_key).is_healthy()  # type: ignore[arg-type]
    assert seen == [b"Bearer open-sesame"]
    assert "open-sesame" not in repr(keyed)


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({}, "CODETUNE_STORE is not set"),
        ({"CODETUNE_STORE": "/s", "CODETUNE_MAX_LORA_RANK": "many"}, "CODETUNE_MAX_LORA_RANK is 'many'"),
        ({"CODETUNE_STORE": "/s", "CODETUNE_MAX_LORA_RANK": "0"}, "CODETUNE_MAX_LORA_RANK is '0'"),
    ],
)
def test_wrong_settings_are_named(environment: dict[str, str], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        ServerSettings.from_environment(environment)
