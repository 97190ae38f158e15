"""Adapters come, change and go beneath running requests: nothing fails, each answer comes from one version."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from codetune_api.contracts import DesiredAdapter, DesiredAdapters
from codetune_server.keeping import AdapterKeeper
from codetune_server.versions import Version, VersionTable, version_model

if TYPE_CHECKING:
    from unit.server.conftest import FakeVllm, Pod

    Make = Callable[..., DesiredAdapter]


def model(adapter: DesiredAdapter) -> str:
    assert adapter.digest
    return version_model(adapter.name, adapter.digest)


async def test_a_wanted_adapter_is_loaded_under_its_versions_name(pod: "Pod", make_adapter: "Make") -> None:
    tuned = make_adapter("tuned")
    report = await pod.put(tuned)
    assert pod.vllm.loaded == {model(tuned): str(pod.settings.cache / str(tuned.digest)[7:])}
    assert report.ready
    assert report.models == ["base", "tuned"]
    assert [(a.name, a.phase, a.digest) for a in report.adapters] == [("tuned", "Ready", tuned.digest)]


async def test_the_set_at_start_is_loaded_before_the_pod_is_ready(
    vllm: "FakeVllm", make_adapter: "Make", start_pod: "Callable[..., Awaitable[Pod]]"
) -> None:
    tuned = make_adapter("tuned")
    vllm.may_load.clear()
    pod = await start_pod(DesiredAdapters(adapters=[tuned]))
    await pod.until(lambda: ("/v1/load_lora_adapter", model(tuned)) in vllm.calls)
    assert (await pod.client.get("/codetune/ready")).status_code == 503
    vllm.may_load.set()
    await pod.until(lambda: model(tuned) in vllm.loaded)
    await pod.put(tuned)
    assert (await pod.client.get("/codetune/ready")).status_code == 200


async def test_nothing_is_loaded_before_vllm_is_healthy(pod: "Pod", make_adapter: "Make") -> None:
    pod.vllm.is_healthy = False
    report = await pod.put(make_adapter("tuned"), wait=0)
    assert not report.ready
    assert [a.phase for a in report.adapters] == ["Loading"]
    pod.vllm.is_healthy = True
    await pod.until(lambda: bool(pod.vllm.loaded))


async def test_a_replaced_version_is_unloaded_when_its_last_stream_ends(pod: "Pod", make_adapter: "Make") -> None:
    old = make_adapter("tuned", "one", content=1)
    new = make_adapter("tuned", "two", content=2)
    await pod.put(old)
    pod.vllm.may_stream.clear()
    streams = [pod.start_stream("tuned") for _ in range(3)]
    await pod.until(lambda: pod.vllm.active[model(old)] == 3)

    report = await pod.put(new)
    assert report.adapters[0].digest == new.digest
    assert set(pod.vllm.loaded) == {model(old), model(new)}
    late = pod.start_stream("tuned")
    await pod.until(lambda: pod.vllm.active[model(new)] == 1)

    pod.vllm.may_stream.set()
    answers = await asyncio.gather(*streams, late)
    assert [answer.status_code for answer in answers] == [200] * 4
    await pod.until(lambda: set(pod.vllm.loaded) == {model(new)})
    assert pod.vllm.unloaded_in_use == []


async def test_a_removed_adapter_answers_404_at_once_and_its_stream_still_ends_well(
    pod: "Pod", make_adapter: "Make"
) -> None:
    tuned = make_adapter("tuned")
    await pod.put(tuned)
    pod.vllm.may_stream.clear()
    stream = pod.start_stream("tuned")
    await pod.until(lambda: pod.vllm.active[model(tuned)] == 1)
    report = await pod.put()
    assert report.models == ["base"]
    assert (await pod.complete("tuned")).status_code == 404
    assert pod.vllm.loaded
    pod.vllm.may_stream.set()
    assert (await stream).text.endswith("data: [DONE]\n\n")
    await pod.until(lambda: not pod.vllm.loaded)
    assert pod.vllm.unloaded_in_use == []


async def test_rolling_back_to_a_draining_version_loads_nothing_again(pod: "Pod", make_adapter: "Make") -> None:
    old, new = make_adapter("tuned", "one", content=1), make_adapter("tuned", "two", content=2)
    await pod.put(old)
    pod.vllm.may_stream.clear()
    stream = pod.start_stream("tuned")
    await pod.until(lambda: pod.vllm.active[model(old)] == 1)
    await pod.put(new)
    await pod.put(old)
    loads = [name for path, name in pod.vllm.calls if path == "/v1/load_lora_adapter"]
    assert loads == [model(old), model(new)]
    pod.vllm.may_stream.set()
    await stream
    await pod.until(lambda: set(pod.vllm.loaded) == {model(old)})


async def test_a_client_that_hangs_up_lets_go_of_its_version(pod: "Pod", make_adapter: "Make") -> None:
    tuned = make_adapter("tuned")
    await pod.put(tuned)
    pod.vllm.may_stream.clear()
    body = json.dumps({"model": "tuned", "prompt": "x", "stream": True}).encode()
    hung_up = asyncio.Event()
    first = [{"type": "http.request", "body": body, "more_body": False}]
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/completions",
        "headers": [(b"content-type", b"application/json")],
    }

    async def receive() -> dict[str, object]:
        if first:
            return first.pop()
        await hung_up.wait()
        return {"type": "http.disconnect"}

    async def send(message: object) -> None:
        pass

    request = asyncio.create_task(pod.app(scope, receive, send))
    await pod.until(lambda: pod.vllm.active[model(tuned)] == 1)
    await pod.put()
    assert model(tuned) in pod.vllm.loaded
    hung_up.set()
    await request
    await pod.until(lambda: not pod.vllm.loaded)


async def test_a_request_that_breaks_inside_vllm_lets_go_of_its_version(pod: "Pod", make_adapter: "Make") -> None:
    await pod.put(make_adapter("tuned"))
    pod.vllm.breaks_requests = True
    with pytest.raises(RuntimeError, match="broke"):
        await pod.complete("tuned")
    await pod.put()
    await pod.until(lambda: not pod.vllm.loaded)


async def test_a_newer_set_supersedes_the_one_that_is_loading(pod: "Pod", make_adapter: "Make") -> None:
    first, second, third = (make_adapter(name, content=i) for i, name in enumerate(("first", "second", "third")))
    pod.vllm.may_load.clear()
    early = asyncio.create_task(pod.put(first, second))
    await pod.until(lambda: ("/v1/load_lora_adapter", model(first)) in pod.vllm.calls)
    late = asyncio.create_task(pod.put(third))
    await asyncio.sleep(0.01)
    pod.vllm.may_load.set()
    assert [a.name for a in (await early).adapters] == ["third"]
    assert (await late).models == ["base", "third"]
    await pod.until(lambda: set(pod.vllm.loaded) == {model(third)})
    assert ("/v1/load_lora_adapter", model(second)) not in pod.vllm.calls


async def test_a_superseded_set_at_start_makes_no_pod_ready(
    vllm: "FakeVllm", make_adapter: "Make", start_pod: "Callable[..., Awaitable[Pod]]"
) -> None:
    first, second = make_adapter("first", content=1), make_adapter("second", content=2)
    vllm.may_load.clear()
    pod = await start_pod(DesiredAdapters(adapters=[first]))
    await pod.until(lambda: ("/v1/load_lora_adapter", model(first)) in vllm.calls)
    await pod.put(second, wait=0)
    vllm.may_load.set()
    vllm.may_load.clear()  # the first load goes on, the second waits
    await pod.until(lambda: ("/v1/load_lora_adapter", model(second)) in vllm.calls)
    assert (await pod.client.get("/codetune/ready")).status_code == 503
    vllm.may_load.set()
    assert (await pod.put(second)).ready


async def test_a_replacement_that_was_taken_back_while_it_loaded_never_answers(
    pod: "Pod", make_adapter: "Make", monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = make_adapter("tuned", "one", content=1), make_adapter("tuned", "two", content=2)
    await pod.put(old)
    switched: list[str] = []
    switch = VersionTable.switch

    def note(table: VersionTable, version: Version) -> None:
        switched.append(version.model)
        switch(table, version)

    monkeypatch.setattr(VersionTable, "switch", note)
    pod.vllm.may_load.clear()
    await pod.put(new, wait=0)
    await pod.until(lambda: ("/v1/load_lora_adapter", model(new)) in pod.vllm.calls)
    await pod.put(old, wait=0)
    pod.vllm.may_load.set()
    await pod.until(lambda: ("/v1/unload_lora_adapter", model(new)) in pod.vllm.calls)
    assert switched == [model(old)]


async def test_the_same_set_again_while_it_loads_loads_nothing_twice(pod: "Pod", make_adapter: "Make") -> None:
    tuned = make_adapter("tuned")
    pod.vllm.may_load.clear()
    await pod.put(tuned, wait=0)
    await pod.until(lambda: ("/v1/load_lora_adapter", model(tuned)) in pod.vllm.calls)
    again = asyncio.create_task(pod.put(tuned))
    await asyncio.sleep(0.01)
    pod.vllm.may_load.set()
    assert (await again).ready
    changes = [path for path, _ in pod.vllm.calls if "load_lora_adapter" in path]
    assert changes == ["/v1/load_lora_adapter"]


async def test_a_version_that_vllm_has_lost_is_let_go_of_at_once(pod: "Pod", make_adapter: "Make") -> None:
    await pod.put(make_adapter("tuned"))
    pod.vllm.loaded.clear()
    await pod.put()
    await pod.until(lambda: not pod.app._keeper.versions)  # type: ignore[union-attr]


async def test_a_client_that_hangs_up_while_it_sends_reaches_no_model(pod: "Pod", make_adapter: "Make") -> None:
    await pod.put(make_adapter("tuned"))
    calls = len(pod.vllm.calls)
    messages: list[dict[str, object]] = [
        {"type": "http.disconnect"},
        {"type": "http.request", "body": b'{"model"', "more_body": True},
    ]

    async def receive() -> dict[str, object]:
        return messages.pop()

    async def send(message: object) -> None:
        raise AssertionError("nobody is there to be answered")

    await pod.app({"type": "http", "method": "POST", "path": "/v1/completions", "headers": []}, receive, send)
    assert len(pod.vllm.calls) == calls


def test_a_version_in_use_is_not_forgotten(tmp_path: Path) -> None:
    table = VersionTable(on_idle=lambda: None)
    version = Version("tuned", "sha256:" + "0" * 64, tmp_path)
    table.add(version)
    table.begin(version)
    with pytest.raises(ValueError, match="its 1 requests"):
        table.forget(version)
    table.end(version)
    table.switch(version)
    with pytest.raises(ValueError, match="still in use"):
        table.forget(version)
    table.retire(["tuned"])
    table.forget(version)
    assert not table


async def test_waiting_ends_with_the_report_as_it_is_when_the_time_is_over(pod: "Pod", make_adapter: "Make") -> None:
    pod.vllm.may_load.clear()
    report = await pod.put(make_adapter("tuned"), wait=0.05)
    assert not report.ready
    assert report.adapters[0].phase == "Loading"
    assert report.models == ["base"]


async def test_readiness_stays_through_a_later_swap(pod: "Pod", make_adapter: "Make") -> None:
    await pod.put(make_adapter("tuned", "one", content=1))
    pod.vllm.may_load.clear()
    report = await pod.put(make_adapter("tuned", "two", content=2), wait=0)
    assert not report.ready
    assert (await pod.client.get("/codetune/ready")).status_code == 200


async def test_an_adapter_without_a_digest_is_replaced_when_its_files_have_changed(
    pod: "Pod", make_adapter: "Make"
) -> None:
    wanted = DesiredAdapter(name="tuned", path="folder")
    old = make_adapter("tuned", "folder", content=1)
    assert (await pod.put(wanted)).adapters[0].digest == old.digest
    new = make_adapter("tuned", "folder", content=2)
    assert (await pod.put(wanted)).adapters[0].digest == new.digest
    await pod.until(lambda: set(pod.vllm.loaded) == {model(new)})


async def test_fifty_swaps_under_load_fail_no_request_and_mix_no_versions(pod: "Pod", make_adapter: "Make") -> None:
    versions = [make_adapter("tuned", f"v{i}", content=i) for i in range(4)]
    steady = make_adapter("steady", content=9)
    await pod.put(versions[0], steady)
    over = asyncio.Event()
    failures: list[str] = []
    answers = 0

    async def client(name: str) -> None:
        nonlocal answers
        while not over.is_set():
            answer = await pod.complete(name, stream=True)
            models = {json.loads(line[6:])["model"] for line in answer.text.split("\n\n") if line.startswith("data: {")}
            if answer.status_code != 200 or models != {name} or not answer.text.endswith("[DONE]\n\n"):
                failures.append(answer.text)
            answers += 1

    clients = [asyncio.create_task(client(name)) for name in ["tuned"] * 6 + ["steady"] * 2]
    for swap in range(50):
        report = await pod.put(versions[swap % 4], steady)
        assert [a.phase for a in report.adapters] == ["Ready", "Ready"]
    over.set()
    await asyncio.gather(*clients)
    assert failures == []
    assert answers > 50
    await pod.until(lambda: set(pod.vllm.loaded) == {model(versions[49 % 4]), model(steady)})
    assert pod.vllm.unloaded_in_use == []


@pytest.mark.parametrize("kind", ["load fails", "load crashes"])
async def test_what_failed_is_tried_again_and_heals(
    kind: str, make_adapter: "Make", vllm: "FakeVllm", keeper: AdapterKeeper
) -> None:
    tuned = make_adapter("tuned")
    if kind == "load fails":
        vllm.refused["tuned"] = "load-wrong-shape"
    else:
        vllm.crashes_on = "tuned"
    await keeper.wait_settled(keeper.want(DesiredAdapters(adapters=[tuned])), 5)
    assert keeper.report().adapters[0].reason == "LoadFailed"
    vllm.refused.clear()
    vllm.crashes_on = ""
    async with asyncio.timeout(5):
        while keeper.report().adapters[0].phase != "Ready":
            await asyncio.sleep(0.005)
    assert keeper.report().adapters[0].message == ""
