"""Whose turn it is where pods wait for a node: what the loop of the scheduler decides, and no look at one pod alone."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from codetune_local.apiserver.registry import Registry
from codetune_local.apiserver.storage import Storage
from codetune_local.inprocess import Client
from codetune_local.kubelet import scheduler
from codetune_local.kubelet.scheduler import Scheduler
from codetune_local.machinery.looping import run_controller
from codetune_local.machinery.recording import Recorder

Obj = dict[str, Any]
NODE = "local"


def pod(name: str, **spec: Any) -> Obj:
    asks = {"name": "main", "image": "x", "resources": {"requests": {"cpu": "1"}}}
    return {"metadata": {"name": name, "namespace": "default"}, "spec": {"containers": [asks], **spec}}


class Cluster:
    """An API with one node and the scheduler, which begins when it is told to."""

    def __init__(self) -> None:
        self.client = Client(Registry(Storage(None)))
        self._scheduler = Scheduler(self.client, NODE, Recorder(self.client, "scheduler"))
        self._tasks: list[asyncio.Task[None]] = []

    async def make_node(self, cpu: str) -> None:
        await self.client.create("nodes", {"metadata": {"name": NODE}})
        await self.resize(cpu)

    async def resize(self, cpu: str) -> None:
        allocatable = {"cpu": cpu, "memory": "8Gi", "pods": "100"}
        await self.client.merge_patch("nodes", NODE, None, {"status": {"allocatable": allocatable}}, "status")

    def begin(self) -> None:
        controller = self._scheduler.controller()
        self._tasks.append(asyncio.get_running_loop().create_task(run_controller(controller, self.client)))

    async def end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def count_looks_at_what_is_bound(self, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
        looks: list[Any] = []
        ask = self.client.list

        async def listen(resource: str, *arguments: Any, **options: Any) -> Any:
            if options.get("where") == self._scheduler._is_bound:
                looks.append(resource)
            return await ask(resource, *arguments, **options)

        monkeypatch.setattr(self.client, "list", listen)
        return looks

    async def bound(self) -> set[str]:
        pods = await self.client.list("pods", where=lambda found: bool(found["spec"].get("nodeName")))
        return {found["metadata"]["name"] for found in pods}

    async def wait(self, expected: Callable[[set[str]], bool]) -> set[str]:
        for _ in range(100):
            if expected(found := await self.bound()):
                break
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        return found


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    made = Cluster()
    await made.client.create("namespaces", {"metadata": {"name": "default"}})
    yield made
    await made.end()


async def test_of_pods_that_come_together_the_more_urgent_one_gets_the_place(cluster: Cluster) -> None:
    await cluster.make_node("1")
    cluster.begin()
    await asyncio.sleep(0.05)
    for name, priority in (("low", 0), ("high", 1000)):
        await cluster.client.create("pods", pod(name, priority=priority))
    assert await cluster.wait(bool) == {"high"}


async def test_many_pods_that_come_together_get_no_more_than_there_is(cluster: Cluster) -> None:
    await cluster.make_node("10")
    cluster.begin()
    for number in range(30):
        await cluster.client.create("pods", pod(f"pod-{number}"))
    assert len(await cluster.wait(lambda found: len(found) >= 10)) == 10


async def test_a_pod_that_was_refused_gets_the_place_that_another_leaves(cluster: Cluster) -> None:
    await cluster.make_node("1")
    await cluster.client.create("pods", pod("first"))
    cluster.begin()
    assert await cluster.wait(bool) == {"first"}
    await cluster.client.create("pods", pod("second"))
    assert await cluster.wait(lambda found: len(found) > 1) == {"first"}
    await cluster.client.merge_patch("pods", "first", "default", {"status": {"phase": "Succeeded"}}, "status")
    assert await cluster.wait(lambda found: "second" in found) == {"first", "second"}


async def test_a_pod_that_was_refused_gets_the_place_that_a_larger_node_has(cluster: Cluster) -> None:
    await cluster.make_node("500m")
    cluster.begin()
    await cluster.client.create("pods", pod("waits"))
    assert await cluster.wait(bool) == set()
    await cluster.resize("2")
    assert await cluster.wait(bool) == {"waits"}


async def test_a_pod_whose_gates_are_gone_is_tried(cluster: Cluster) -> None:
    await cluster.make_node("1")
    cluster.begin()
    await cluster.client.create("pods", pod("gated", schedulingGates=[{"name": "example.com/wait"}]))
    assert await cluster.wait(bool) == set()
    await cluster.client.merge_patch("pods", "gated", "default", {"spec": {"schedulingGates": None}})
    assert await cluster.wait(bool) == {"gated"}


async def test_pods_that_wait_are_tried_again_together_though_nothing_is_told(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "LOOK_AGAIN", 0.3)
    await cluster.make_node("1")
    cluster.begin()
    await cluster.client.create("pods", pod("first"))
    assert await cluster.wait(bool) == {"first"}
    for number in range(20):
        await cluster.client.create("pods", pod(f"waits-{number}"))
    looks = cluster.count_looks_at_what_is_bound(monkeypatch)
    seen = -1
    while len(looks) > seen:  # until all have been refused, and have been looked at again because that was written down
        seen = len(looks)
        await asyncio.sleep(0.1)
    looks.clear()
    # Nobody is told that a pod has gone which was not asked to go before.
    await cluster.client.delete("pods", "first", "default", grace_period_seconds=0)
    assert len(await cluster.wait(bool)) == 1
    await asyncio.sleep(0.5)
    assert 1 <= len(looks) <= 5
