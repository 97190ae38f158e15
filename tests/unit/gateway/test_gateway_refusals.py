"""What the gateway refuses by itself, in OpenAI's form, and what it lists; no server hears of either."""

import json
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import openai
import pytest

if TYPE_CHECKING:
    from unit.gateway.conftest import FakeServer, Gateway

COMPLETIONS = "/v1/completions"
MODELS = "Its models are `default`, `project/gone`, `project/shop`, `project/site`."


@pytest.mark.parametrize(
    ("status", "param", "said", "body"),
    [
        pytest.param(400, None, "must be a JSON object", b"", id="nothing"),
        pytest.param(400, None, "must be a JSON object", b"{", id="no JSON"),
        pytest.param(400, None, "must be a JSON object", b"[1]", id="a list"),
        pytest.param(400, None, "must be a JSON object", b'"x"', id="a string"),
        pytest.param(400, None, "must be a JSON object", b"[" * 100_000, id="nested without an end"),
        pytest.param(400, None, "must be a JSON object", b"\xff\xfe\xfd", id="no text"),
        pytest.param(400, "model", "must be a string", b'{"model": 1}', id="a model that is a number"),
        pytest.param(404, "model", MODELS, b'{"model": "gpt-4"}', id="an unknown model"),
        pytest.param(404, "model", MODELS, b'{"model": "project/none"}', id="an unknown project"),
        pytest.param(404, "model", MODELS, b'{"model": "\\ud800"}', id="half a character"),
        pytest.param(
            503,
            None,
            "The base model of the ModelDeployment nowhere is not served now: `kubectl get team builders -o yaml`",
            b'{"model": "project/gone"}',
            id="a model without a server",
        ),
    ],
)
async def test_a_body_is_refused(
    status: int, param: str | None, said: str, body: bytes, gateway: "Gateway", servers: "dict[str, FakeServer]"
) -> None:
    answer = await gateway.call("POST", COMPLETIONS, body)
    assert (answer.status, answer.error["param"]) == (status, param)
    assert said in answer.error["message"]
    assert ("Retry-After" in answer.headers) == (status == 503)
    assert not any(server.seen for server in servers.values())


@pytest.mark.parametrize(("status", "depth"), [(200, 500), (400, 5_000)])
async def test_a_deep_body_is_passed_on_or_refused(status: int, depth: int, gateway: "Gateway") -> None:
    body = b'{"x":' + b"[" * depth + b"]" * depth + b"}"
    assert (await gateway.call("POST", COMPLETIONS, body)).status == status


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "nonsense"])
async def test_a_body_that_is_not_packed_as_it_says_is_refused(encoding: str, gateway: "Gateway") -> None:
    answer = await gateway.call("POST", COMPLETIONS, b"x{}{}{}{}{}", Content_Encoding=encoding)
    assert (answer.status, answer.error["type"]) == (400, "invalid_request_error")


async def test_a_body_of_64_mib_is_passed_on(gateway: "Gateway", servers: "dict[str, FakeServer]") -> None:
    body = b'{"model": "default", "prompt": "' + b"x" * ((64 << 20) - 34) + b'"}'
    assert len(body) == 64 << 20
    assert (await gateway.call("POST", COMPLETIONS, body)).status == 200
    assert len(servers["base"].seen[0].body) == len(body) + len("starcoder") - len("default")


@pytest.mark.parametrize("how", ["by its length", "in pieces"])
async def test_a_larger_one_is_refused(how: str, gateway: "Gateway", servers: "dict[str, FakeServer]") -> None:
    body = b" " * ((64 << 20) + 1)

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 1 << 20):
            yield body[start : start + (1 << 20)]

    data: Any = body if how == "by its length" else pieces()
    answer = await gateway.call("POST", COMPLETIONS, data)
    assert (answer.status, answer.error["code"]) == (413, "request_too_large")
    assert str(64 << 20) in answer.error["message"]
    assert not servers["base"].seen


@pytest.mark.parametrize(
    ("allowed", "method", "path"),
    [
        ("POST", "GET", COMPLETIONS),
        ("POST", "PUT", "/v1/chat/completions"),
        ("GET, HEAD", "POST", "/v1/models"),
        ("GET, HEAD", "DELETE", "/v1/models/project/shop"),
        ("GET, HEAD", "POST", "/readyz"),
    ],
)
async def test_another_method_is_refused(allowed: str, method: str, path: str, gateway: "Gateway") -> None:
    answer = await gateway.call(method, path)
    assert (answer.status, answer.headers["Allow"], answer.error["code"]) == (405, allowed, "method_not_supported")


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/v1",
        "/v1/embeddings",
        "/v1/completions/",
        "/v1/load_lora_adapter",
        "/metrics",
        "/v1/models/",
        "//v1/models",
    ],
)
async def test_another_route_is_refused_with_those_that_there_are(path: str, gateway: "Gateway") -> None:
    answer = await gateway.call("POST", path)
    assert (answer.status, answer.error["code"]) == (404, "unknown_url")
    assert (
        "GET /v1/models, GET /v1/models/ID, POST /v1/completions, POST /v1/chat/completions" in answer.error["message"]
    )


async def test_models_are_listed(gateway: "Gateway") -> None:
    listed = (await gateway.call("GET", "/v1/models")).json
    assert listed["object"] == "list"
    assert [(entry["id"], entry["root"]) for entry in listed["data"]] == [
        ("default", "starcoder"),
        ("project/gone", ""),
        ("project/shop", "shop-adapter"),
        ("project/site", "site-adapter"),
    ]
    assert {(entry["object"], entry["owned_by"], type(entry["created"])) for entry in listed["data"]} == {
        ("model", "builders", int)
    }


@pytest.mark.parametrize("name", ["default", "project/shop", "project%2Fshop"])
async def test_a_model_is_shown(name: str, gateway: "Gateway") -> None:
    shown = (await gateway.call("GET", f"/v1/models/{name}")).json
    assert shown["id"] == name.replace("%2F", "/")
    assert shown in (await gateway.call("GET", "/v1/models")).json["data"]


@pytest.mark.parametrize("name", ["shop", "project/none", "starcoder", "..%2Fmodels"])
async def test_an_unknown_model_is_not_shown(name: str, gateway: "Gateway") -> None:
    answer = await gateway.call("GET", f"/v1/models/{name}")
    assert (answer.status, answer.error["code"], answer.error["param"]) == (404, "model_not_found", "model")
    assert answer.error["message"].endswith(MODELS)


async def test_openais_client_knows_the_answers(gateway: "Gateway") -> None:
    async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="sk-team-first", max_retries=0) as client:
        assert [model.id async for model in client.models.list()][:2] == ["default", "project/gone"]
        assert (await client.models.retrieve("project/shop")).root == "shop-adapter"  # type: ignore[attr-defined]
        assert (await client.completions.create(model="project/site", prompt="x")).model == "site-adapter"
        headers = {"X-Codetune-Project": "shop"}
        done = await client.completions.create(model="gpt-4", prompt="x", extra_headers=headers)
        assert done.model == "shop-adapter"
        with pytest.raises(openai.NotFoundError, match="no model 'gpt-4'") as unknown:
            await client.chat.completions.create(model="gpt-4", messages=[])
        assert (unknown.value.code, unknown.value.param) == ("model_not_found", "model")
        with pytest.raises(openai.AuthenticationError):
            await client.with_options(api_key="sk-wrong").models.list()
        stream = await client.completions.create(model="default", prompt="x", stream=True)
        assert "".join([chunk.choices[0].text async for chunk in stream]) == "012"


async def test_an_answer_of_ours_is_json(gateway: "Gateway") -> None:
    answer = await gateway.call("GET", "/v1/nothing")
    assert answer.headers["Content-Type"].startswith("application/json")
    assert json.loads(answer.body)
