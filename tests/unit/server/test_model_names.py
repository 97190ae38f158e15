"""Clients speak of stable names only: in requests, answers and lists; versions and vLLM's switches are ours alone."""

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from codetune_api.contracts import DesiredAdapter

if TYPE_CHECKING:
    from unit.server.conftest import Pod

    Make = Callable[..., DesiredAdapter]


def version(adapter: DesiredAdapter) -> str:
    return f"{adapter.name}@{str(adapter.digest)[7:19]}"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
@pytest.mark.parametrize("name", ["tuned", "team/tuned.v2_x"])
async def test_an_answer_carries_the_name_that_was_asked_for(
    name: str, path: str, stream: bool, pod: "Pod", make_adapter: "Make"
) -> None:
    tuned = make_adapter(name, path="tuned")
    await pod.put(tuned)
    answer = await pod.complete(name, path, stream=stream)
    assert pod.vllm.calls[-1] == (path, version(tuned))
    assert f'"model":"{name}"' in answer.text
    assert "@" not in answer.text
    if not stream:
        assert answer.json()["model"] == name
        assert int(answer.headers["content-length"]) == len(answer.content)
    assert answer.headers["vary"] == "Origin"


async def test_names_nested_in_events_are_restored_too(pod: "Pod", make_adapter: "Make") -> None:
    await pod.put(make_adapter("tuned"))
    answer = await pod.complete("tuned", "/v1/responses", stream=True)
    created = json.loads(answer.text.split("\n")[1].removeprefix("data: "))
    assert created["response"]["model"] == "tuned"
    assert "@" not in answer.text


async def test_an_error_of_vllm_for_an_adapter_is_passed_through(pod: "Pod", make_adapter: "Make") -> None:
    tuned = make_adapter("tuned")
    await pod.put(tuned)
    pod.vllm.loaded.clear()  # as if vLLM had lost it
    answer = await pod.complete("tuned")
    assert answer.status_code == 404
    assert answer.json()["error"]["type"] == "NotFoundError"


async def test_the_base_model_and_unknown_models_reach_vllm_unchanged(pod: "Pod", make_adapter: "Make") -> None:
    await pod.put(make_adapter("tuned"))
    for name, status in (("base", 200), ("nope", 404), ("tuned2", 404)):
        answer = await pod.complete(name)
        assert answer.status_code == status
        assert json.loads(pod.vllm.bodies[-1]) == {"model": name, "prompt": "hello"}
    assert "The model `tuned2` does not exist." in answer.json()["error"]["message"]


@pytest.mark.parametrize("escaped", [False, True], ids=["plain", "escaped"])
async def test_a_versions_own_name_is_unknown_outside(escaped: bool, pod: "Pod", make_adapter: "Make") -> None:
    tuned = make_adapter("tuned")
    await pod.put(tuned)
    body = json.dumps({"model": version(tuned), "prompt": "x"})
    body = body.replace("@", "\\u0040") if escaped else body
    answer = await pod.client.post("/v1/completions", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 404
    assert answer.json() == {
        "error": {
            "message": f"The model `{version(tuned)}` does not exist.",
            "type": "NotFoundError",
            "param": "model",
            "code": 404,
        }
    }
    assert ("/v1/completions", version(tuned)) not in pod.vllm.calls


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        pytest.param(b"{bad", "application/json", id="not JSON"),
        pytest.param(b"[1]", "application/json", id="a list"),
        pytest.param(b"", "application/json", id="nothing"),
        pytest.param(b'{"model": 7}', "application/json", id="a number for a name"),
        pytest.param(b'{"prompt": "x"}', "application/json", id="no name"),
        pytest.param(b"[" * 100_000, "application/json", id="nested too deeply"),
        pytest.param(b"\xff\xfe", "application/json", id="not text"),
        pytest.param(b'{"model": "tuned"}', "text/plain", id="another type"),
    ],
)
async def test_a_body_that_names_no_adapter_reaches_vllm_unchanged(
    body: bytes, content_type: str, pod: "Pod", make_adapter: "Make"
) -> None:
    await pod.put(make_adapter("tuned"))
    await pod.client.post("/v1/other", content=body, headers={"content-type": content_type})
    assert pod.vllm.bodies[-1] == body


@pytest.mark.parametrize("path", ["/tokenize", "/v1/messages", "/invocations", "/v1/embeddings"])
async def test_every_route_that_names_a_model_knows_the_adapters(path: str, pod: "Pod", make_adapter: "Make") -> None:
    tuned = make_adapter("tuned")
    await pod.put(tuned)
    header = {"X-Amzn-SageMaker-Adapter-Identifier": "another"}  # would choose the model past the body
    await pod.client.post(path, json={"model": "tuned"}, headers=header)
    assert pod.vllm.calls[-1] == (path, version(tuned))
    assert b"x-amzn-sagemaker-adapter-identifier" not in pod.vllm.headers[-1]
    assert int(pod.vllm.headers[-1][b"content-length"]) == len(pod.vllm.bodies[-1])


async def test_a_body_over_the_limit_is_refused(
    pod: "Pod", make_adapter: "Make", monkeypatch: pytest.MonkeyPatch
) -> None:
    await pod.put(make_adapter("tuned"))
    monkeypatch.setattr("codetune_server.middleware.MAX_BODY_BYTES", 100)
    answer = await pod.complete("tuned", suffix="x" * 100)
    assert answer.status_code == 413
    assert "larger than 100 bytes" in answer.json()["error"]["message"]


async def test_the_list_names_the_base_model_and_the_stable_names(pod: "Pod", make_adapter: "Make") -> None:
    one, two = make_adapter("one", content=1), make_adapter("team/two", content=2)
    await pod.put(one, two)
    pod.vllm.loaded["static"] = "/store/static"  # with --lora-modules
    cards = (await pod.client.get("/v1/models")).json()["data"]
    assert [(card["id"], card["parent"]) for card in cards] == [
        ("base", None),
        ("one", "base"),
        ("team/two", "base"),
        ("static", "base"),
    ]


async def test_a_draining_version_is_not_listed(pod: "Pod", make_adapter: "Make") -> None:
    await pod.put(make_adapter("tuned", "one", content=1))
    pod.vllm.may_stream.clear()
    stream = pod.start_stream("tuned")
    await pod.until(lambda: pod.vllm.active.total() == 1)
    await pod.put(make_adapter("tuned", "two", content=2))
    assert [card["id"] for card in (await pod.client.get("/v1/models")).json()["data"]] == ["base", "tuned"]
    pod.vllm.may_stream.set()
    await stream


@pytest.mark.parametrize(("name", "status"), [("base", 200), ("team/two", 200), ("nope", 404)])
async def test_one_model_is_retrieved_by_its_name(name: str, status: int, pod: "Pod", make_adapter: "Make") -> None:
    await pod.put(make_adapter("team/two"))
    answer = await pod.client.get(f"/v1/models/{name}")
    assert answer.status_code == status
    found: dict[str, Any] = answer.json()
    assert found.get("id") == (name if status == 200 else None)


async def test_a_version_is_not_retrieved_by_its_own_name(pod: "Pod", make_adapter: "Make") -> None:
    tuned = make_adapter("tuned")
    await pod.put(tuned)
    assert (await pod.client.get(f"/v1/models/{version(tuned)}")).status_code == 404
