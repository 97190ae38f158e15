"""A team's keys: asked for on every route but the kubelet's, renewed while the gateway runs."""

import asyncio
import os
from typing import TYPE_CHECKING

import pytest
from mounted_secret import mount

if TYPE_CHECKING:
    from unit.gateway.conftest import FakeServer, Gateway

KEY, OTHER, SERVER_KEY = "sk-team-first", "sk-team-second", "sk-server-first"

ROUTES = [
    ("GET", "/v1/models"),
    ("GET", "/v1/models/default"),
    ("POST", "/v1/completions"),
    ("POST", "/v1/chat/completions"),
    ("DELETE", "/v1/completions"),
    ("OPTIONS", "/v1/completions"),
    ("POST", "/v1/embeddings"),
    ("GET", "/metrics"),
    ("GET", "/"),
    ("GET", "/readyz/"),
    ("GET", "//healthz"),
]


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_every_route_asks_for_a_key(
    method: str, path: str, gateway: "Gateway", servers: "dict[str, FakeServer]"
) -> None:
    answer = await gateway.call(method, path, Authorization="")
    assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert (answer.error["type"], answer.error["code"]) == ("invalid_request_error", "invalid_api_key")
    assert "the gateway of the team builders" in answer.error["message"]
    assert not any(server.seen for server in servers.values())
    assert (await gateway.call(method, path)).status != 401


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
async def test_the_kubelet_needs_no_key(path: str, gateway: "Gateway") -> None:
    assert (await gateway.call("GET", path, Authorization="")).status == 200


@pytest.mark.parametrize(
    ("status", "header"),
    [
        pytest.param(200, f"Bearer {KEY}", id="the first key"),
        pytest.param(200, f"Bearer {OTHER}", id="the second key"),
        pytest.param(200, f"bearer   {KEY}", id="the scheme in small letters, and spaces"),
        pytest.param(401, KEY, id="no scheme"),
        pytest.param(401, f"Basic {KEY}", id="another scheme"),
        pytest.param(401, "Bearer", id="no key"),
        pytest.param(401, f"Bearer {KEY[:-1]}", id="half a key"),
        pytest.param(401, f"Bearer {KEY}x", id="a key and more"),
        pytest.param(401, f"Bearer {SERVER_KEY}", id="the key of a server"),
        pytest.param(401, "Bearer ключ", id="letters that no key has"),
    ],
)
async def test_who_is_admitted(status: int, header: str, gateway: "Gateway") -> None:
    assert (await gateway.complete({"prompt": "x"}, Authorization=header)).status == status


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        pytest.param(200, {"X_Api_Key": OTHER}, id="alone"),
        pytest.param(401, {"X_Api_Key": f"{OTHER}x"}, id="a key and more"),
        pytest.param(401, {"X_Api_Key": "ключ"}, id="letters that no key has"),
        pytest.param(401, {"X_Api_Key": KEY, "Authorization": "Bearer sk-wrong"}, id="Authorization counts first"),
    ],
)
async def test_a_key_may_come_in_a_header_that_proxies_pass_on(
    status: int, headers: dict[str, str], gateway: "Gateway", servers: "dict[str, FakeServer]"
) -> None:
    answer = await gateway.complete({"prompt": "x"}, **{"Authorization": "", **headers})
    assert answer.status == status
    assert not [seen for seen in servers["base"].seen if "X-Api-Key" in seen.headers]


@pytest.mark.parametrize("value", [b"Bearer \xff\xfe", b"Bearer \xed\xb3\xbf"])
async def test_bytes_that_are_no_text_are_no_key(value: bytes, gateway: "Gateway") -> None:
    said = ask_raw(
        gateway, b"GET /v1/models HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: %b\r\n\r\n" % value
    )
    assert (await said).startswith(b"HTTP/1.1 401 ")


async def test_a_query_that_is_no_text_is_passed_on_or_refused(gateway: "Gateway") -> None:
    head = (
        b"POST /v1/completions?x=\xff\xc3\xa9 HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer %b\r\n"
    )
    said = await ask_raw(gateway, head % KEY.encode() + b"Content-Length: 2\r\n\r\n{}")
    assert said.split()[1] in (b"200", b"400")


async def test_a_request_that_is_no_http_puts_no_key_into_the_answer_nor_the_log(gateway: "Gateway") -> None:
    """The fixture looks through the log."""
    said = await ask_raw(
        gateway, b"GET /v1/models HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\x00\r\n\r\n" % KEY.encode()
    )
    assert said.startswith(b"HTTP/1.0 400 ")
    assert b"no valid HTTP" in said
    assert KEY.encode() not in said


async def ask_raw(gateway: "Gateway", request: bytes) -> bytes:
    """Bytes as they are, until the gateway hangs up."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(gateway.url.rpartition(":")[2]))
    writer.write(request)
    said = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    await writer.wait_closed()
    return said


async def test_keys_are_renewed_without_a_restart(gateway: "Gateway") -> None:
    assert (await gateway.call("GET", "/v1/models")).status == 200
    mount(gateway.settings.team_keys, {"keys": OTHER})
    assert (await gateway.call("GET", "/v1/models")).status == 401
    assert (await gateway.call("GET", "/v1/models", Authorization=f"Bearer {OTHER}")).status == 200


@pytest.mark.parametrize("how", ["no Secret", "no key in it"])
async def test_without_a_valid_key_the_gateway_lives_but_is_not_ready(how: str, gateway: "Gateway") -> None:
    folder = gateway.settings.team_keys
    if how == "no Secret":
        os.rename(folder, folder.with_name("away"))
    else:
        mount(folder, {"keys": "\n \n"})
    unready = await gateway.call("GET", "/readyz")
    assert unready.status == 503
    assert b"apiKeysSecretRef" in unready.body
    assert (await gateway.call("GET", "/healthz")).status == 200
    assert (await gateway.complete({})).status == 401
    mount(folder, {"keys": KEY})
    assert (await gateway.call("GET", "/readyz")).status == 200
    assert (await gateway.complete({})).status == 200


async def test_an_ending_gateway_serves_but_is_not_ready_and_closes_connections(gateway: "Gateway") -> None:
    assert "Connection" not in (await gateway.complete({})).headers
    gateway.traffic.is_ending = True
    unready = await gateway.call("GET", "/readyz")
    assert (unready.status, unready.body) == (503, b"The pod is about to end.")
    for served in (await gateway.complete({}), await gateway.call("GET", "/healthz"), await gateway.call("GET", "/x")):
        assert served.headers["Connection"] == "close"
    assert [reply.status for reply in gateway.replies] == [200, 503, 200, 200, 404]
    said = await ask_raw(gateway, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")  # until it hangs up by itself
    assert said.endswith(b"ok")
