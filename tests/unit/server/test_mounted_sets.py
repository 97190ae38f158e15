"""The mounted ConfigMap: the set of the start, and the way to a pod that the operator can't reach."""

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from codetune_api.contracts import DesiredAdapter, DesiredAdapters
from codetune_server.mounting import MountedSet

if TYPE_CHECKING:
    from unit.server.conftest import Pod

    Make = Callable[..., DesiredAdapter]
    Start = Callable[..., Awaitable[Pod]]


@pytest.fixture(autouse=True)
def looking_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MountedSet.__init__, "__kwdefaults__", {"look_seconds": 0.01})


def renew(pod: "Pod", text: str) -> None:
    """As the kubelet does: another file in its place."""
    path = pod.settings.store.parent / "adapters.json"
    path.with_suffix(".new").write_text(text)
    os.replace(path.with_suffix(".new"), path)


def dump(*adapters: DesiredAdapter) -> str:
    return json.dumps(DesiredAdapters(adapters=list(adapters)).to_wire())


async def until_served(pod: "Pod", *names: str) -> None:
    async with asyncio.timeout(5):
        while (await pod.report()).models != ["base", *names]:
            await asyncio.sleep(0.005)


async def test_a_pod_that_nobody_tells_anything_follows_its_file(start_pod: "Start", make_adapter: "Make") -> None:
    pod = await start_pod(DesiredAdapters())
    renew(pod, dump(make_adapter("tuned")))
    await until_served(pod, "tuned")
    renew(pod, dump(make_adapter("other")))
    await until_served(pod, "other")


async def test_a_file_that_comes_late_is_older_than_what_the_operator_said(
    start_pod: "Start", make_adapter: "Make"
) -> None:
    pod = await start_pod(DesiredAdapters())
    await pod.put(make_adapter("newest"))
    renew(pod, dump(make_adapter("former")))
    await asyncio.sleep(0.1)
    assert (await pod.report()).models == ["base", "newest"]


async def test_a_file_that_becomes_readable_makes_the_pod_ready(start_pod: "Start", make_adapter: "Make") -> None:
    pod = await start_pod("{half")
    assert (await pod.client.get("/codetune/ready")).status_code == 503
    renew(pod, dump(make_adapter("tuned")))
    await until_served(pod, "tuned")
    assert (await pod.client.get("/codetune/ready")).status_code == 200


async def test_a_file_that_becomes_unreadable_changes_nothing(start_pod: "Start", make_adapter: "Make") -> None:
    pod = await start_pod(DesiredAdapters(adapters=[make_adapter("tuned")]))
    await until_served(pod, "tuned")
    renew(pod, "{half")
    await asyncio.sleep(0.1)
    assert (await pod.report()).models == ["base", "tuned"]
    assert (await pod.client.get("/codetune/ready")).status_code == 200


async def test_without_a_file_nothing_is_followed(tmp_path: Path) -> None:
    mounted = MountedSet(None)
    assert mounted.read() == (DesiredAdapters(), "")
    await asyncio.wait_for(mounted.follow(pytest.fail), 1)


async def test_the_same_file_again_is_no_news(tmp_path: Path) -> None:
    path, taken = tmp_path / "adapters.json", []
    path.write_text(dump())
    mounted = MountedSet(path, look_seconds=0.001)
    mounted.read()
    following = asyncio.create_task(mounted.follow(taken.append))
    await asyncio.sleep(0.05)
    os.utime(path)
    await asyncio.sleep(0.05)
    mounted.supersede()
    await asyncio.wait_for(following, 1)
    assert taken == []
