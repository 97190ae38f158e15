"""What goes up to the server of a model, and what comes down: the body byte by byte, headers by name, keys never."""

import gzip
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from codetune_api.gateway import GatewayConfig
from codetune_gateway.settings import GatewaySettings
from mounted_secret import mount

if TYPE_CHECKING:
    from unit.gateway.conftest import FakeServer, Gateway

SERVER_KEY = "sk-server-first"
DEFAULT, SHOP, SITE = ("base", "starcoder"), ("tuned", "shop-adapter"), ("base", "site-adapter")


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
@pytest.mark.parametrize(
    ("expected", "project", "content"),
    [
        pytest.param(DEFAULT, "", {}, id="the default"),
        pytest.param(SHOP, "", {"model": "project/shop"}, id="a project as the model"),
        pytest.param(SITE, "site", {"model": "gpt-4"}, id="a project in the header"),
        pytest.param(SHOP, "", {"model": "shop-adapter"}, id="a model by its own name"),
    ],
)
async def test_a_request_goes_to_its_model(
    expected: tuple[str, str],
    project: str,
    content: dict[str, Any],
    path: str,
    gateway: "Gateway",
    servers: "dict[str, FakeServer]",
) -> None:
    answer = await gateway.complete(content, path, X_Codetune_Project=project)
    seen = [(name, request.model, request.path) for name, server in servers.items() for request in server.seen]
    assert (answer.status, seen) == (200, [(*expected, path)])


@pytest.mark.parametrize(
    ("expected", "body"),
    [
        pytest.param(
            b'{ "prompt":"a\\tb ", "model" : "starcoder",\n"n":1.50}',
            b'{ "prompt":"a\\tb ", "model" : "default",\n"n":1.50}',
            id="the name is replaced and every other byte stays",
        ),
        pytest.param(b'{"n": 1, "model": "starcoder"}', b'{"n":1}', id="a name is added"),
        pytest.param(b'{"model": "starcoder", "n": 1}', b'{"model":null,"n":1}', id="null is replaced"),
        pytest.param(
            b'{"model": "starcoder", "x": {"model": "default"}}',
            b'{"model":"default","x":{"model":"default"}}',
            id="one of the same name further in stays",
        ),
        pytest.param(b'{"model": "starcoder"}', b'{"model":"project/shop","model":"default"}', id="the last of two"),
    ],
)
async def test_the_body_names_the_model_as_its_server_does(
    expected: bytes, body: bytes, gateway: "Gateway", servers: "dict[str, FakeServer]"
) -> None:
    assert (await gateway.call("POST", "/v1/completions", body)).status == 200
    (seen,) = servers["base"].seen
    assert seen.body == expected
    assert seen.headers["Content-Length"] == str(len(expected))


@pytest.mark.parametrize("query", ["", "?a=1&b=%2F+x&a=2", "?x=%E2%82%AC&y=%7e", "?a?b"])
async def test_the_query_string_is_kept(query: str, gateway: "Gateway", servers: "dict[str, FakeServer]") -> None:
    assert (await gateway.complete({}, f"/v1/completions{query}")).status == 200
    assert servers["base"].seen[0].path == f"/v1/completions{query}"


async def test_only_harmless_headers_go_up(gateway: "Gateway", servers: "dict[str, FakeServer]") -> None:
    passed = {"Accept": "text/event-stream", "User-Agent": "ide/1", "X-Request-Id": "r-1", "traceparent": "00-a-b-01"}
    dropped = {
        "Cookie": "session=1",
        "Connection": "keep-alive, Accept-Language, X-Hop",
        "Accept-Language": "en",
        "X-Hop": "1",
        "Keep-Alive": "5",
        "TE": "trailers",
        "Proxy-Authorization": "Basic x",
        "Api-Key": "k",
        "X-Api-Key": "k",
        "X-Codetune-Token": "t",
        "X-Codetune-Project": "site",
        "X-Amzn-SageMaker-Adapter-Identifier": "other",
        "X-Data-Parallel-Rank": "1",
        "X-Forwarded-For": "10.0.0.1",
        "Accept-Encoding": "gzip",
    }
    assert (await gateway.complete({}, **passed, **dropped)).status == 200
    (seen,) = servers["base"].seen
    host = servers["base"].url.removeprefix("http://")
    length = str(len(seen.body))
    ours = {"Host": host, "Content-Type": "application/json", "Content-Length": length, "Accept-Encoding": "identity"}
    assert {name.lower(): value for name, value in seen.headers.items()} == {
        name.lower(): value for name, value in (passed | ours).items()
    }


class TestCookies:
    """A server that sets one, under a name: addresses have none."""

    @pytest.fixture
    def config(self, config: GatewayConfig, servers: "dict[str, FakeServer]") -> GatewayConfig:
        assert config.default
        named = config.default.model_copy(update={"url": f"http://localhost:{servers['base'].port}/"})
        return config.model_copy(update={"default": named})

    async def test_a_cookie_for_one_client_is_not_sent_for_another(
        self, gateway: "Gateway", servers: "dict[str, FakeServer]"
    ) -> None:
        servers["base"].headers = {"Set-Cookie": "session=1"}
        assert [(await gateway.complete({})).status for _ in range(2)] == [200, 200]
        assert not [request for request in servers["base"].seen if "Cookie" in request.headers]


async def test_a_packed_body_is_unpacked(gateway: "Gateway", servers: "dict[str, FakeServer]") -> None:
    body = gzip.compress(b'{"prompt": "x"}')
    assert (await gateway.call("POST", "/v1/completions", body, Content_Encoding="gzip")).status == 200
    (seen,) = servers["base"].seen
    assert (json.loads(seen.body)["prompt"], "Content-Encoding" in seen.headers) == ("x", False)


async def test_a_server_gets_the_key_that_it_asks_for(gateway: "Gateway", servers: "dict[str, FakeServer]") -> None:
    await gateway.complete({"model": "project/shop"})
    assert servers["tuned"].seen[0].headers["Authorization"] == f"Bearer {SERVER_KEY}"


async def test_a_new_key_of_a_server_counts_at_once(gateway: "Gateway", servers: "dict[str, FakeServer]") -> None:
    assert gateway.settings.server_keys
    for key in ("sk-server-first", "sk-server-third"):
        mount(gateway.settings.server_keys / "tuned-keys", {"a": key})
        assert (await gateway.complete({"model": "project/shop"})).status == 200
    keys = [request.headers["Authorization"] for request in servers["tuned"].seen]
    assert keys == ["Bearer sk-server-first", "Bearer sk-server-third"]


@pytest.mark.parametrize("data", [{}, {"a": "\n"}, {"a": "sk-with-a-\x07bell"}, {"a": "sk-ключ"}])
async def test_without_a_key_of_the_server_the_answer_names_its_secret(
    data: dict[str, str], gateway: "Gateway", servers: "dict[str, FakeServer]"
) -> None:
    assert gateway.settings.server_keys
    mount(gateway.settings.server_keys / "tuned-keys", {"a": "", "b": "", **data})
    answer = await gateway.complete({"model": "project/shop"})
    assert (answer.status, "Retry-After" in answer.headers) == (503, True)
    assert "the Secret tuned-keys" in answer.error["message"]
    assert not servers["tuned"].seen


class TestWithoutServerKeys:
    """No folder of servers' keys is mounted."""

    @pytest.fixture
    def settings(self, settings: GatewaySettings) -> GatewaySettings:
        return replace(settings, server_keys=None)

    async def test_a_server_that_asks_for_none_is_reached(self, gateway: "Gateway") -> None:
        assert (await gateway.complete({})).status == 200
        assert (await gateway.complete({"model": "project/shop"})).status == 503


@pytest.mark.parametrize("status", [200, 400, 404, 422, 429, 500, 503])
async def test_status_headers_and_body_come_down_as_they_are(
    status: int, gateway: "Gateway", servers: "dict[str, FakeServer]"
) -> None:
    servers["base"].status = status
    servers["base"].headers = {"X-Request-Id": "r-1", "Retry-After": "7", "X-Hop": "1", "Connection": "X-Hop"}
    answer = await gateway.complete({})
    assert (answer.status, answer.json["model"]) == (status, "starcoder")
    assert (answer.headers["X-Request-Id"], answer.headers["Retry-After"]) == ("r-1", "7")
    assert answer.headers["Content-Type"] == "application/json; charset=utf-8"
    assert not {"X-Hop", "Connection"} & set(answer.headers)


@pytest.mark.parametrize("status", [401, 403])
async def test_a_server_that_does_not_admit_the_gateway_is_no_fault_of_the_clients_key(
    status: int, gateway: "Gateway", servers: "dict[str, FakeServer]", caplog: pytest.LogCaptureFixture
) -> None:
    servers["tuned"].status = status
    answer = await gateway.complete({"model": "project/shop"})
    assert answer.status == 502
    assert "ModelDeployment tuned does not admit" in answer.error["message"]
    assert "apiKeysSecretRef" in answer.error["message"]
    assert f"ModelDeployment tuned: it answered {status}" in caplog.messages
