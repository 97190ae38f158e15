"""The garbage collector's loop: follows every resource of the cluster and deletes what has lost its owners."""

import asyncio
import logging
from collections import OrderedDict

from codetune_local.controllers.garbage_graph import (
    FOREGROUND,
    ORPHAN,
    Node,
    OwnerGraph,
    OwnerState,
    judge,
    without_owners,
)
from codetune_local.machinery.client import ApiError, Client, Event
from codetune_local.machinery.executing import delete_if_same, modify
from codetune_local.machinery.looping import follow
from codetune_local.machinery.objects import Obj, finalizers_of, uid_of
from codetune_local.machinery.queueing import WorkQueue
from codetune_local.machinery.reading import get_or_none

logger = logging.getLogger(__name__)
CRDS = "customresourcedefinitions.apiextensions.k8s.io"
_IGNORED = ("events", "events.events.k8s.io")
_REMEMBERED_GONE = 10_000
_REFRESH_AGAIN = 1.0
"""Seconds after a CRD changed that the list of resources is read once more."""


class GarbageCollector:
    """Deletes dependents of what is gone, in the background, the foreground, or not at all (orphans)."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._graph = OwnerGraph()
        self._queue: WorkQueue[str] = WorkQueue()
        self._gone: OrderedDict[str, None] = OrderedDict()
        self._followers: dict[str, asyncio.Task[None]] = {}
        self._refresh = asyncio.Event()

    async def run(self) -> None:
        """Run until cancelled."""
        try:
            await self._follow_resources()
            async with asyncio.TaskGroup() as group:
                group.create_task(follow(self._client, CRDS, lambda _: self._refresh.set()))
                group.create_task(self._keep_following())
                group.create_task(self._work())
        finally:
            self._queue.close()
            for task in self._followers.values():
                task.cancel()

    async def _keep_following(self) -> None:
        while True:
            await self._refresh.wait()
            self._refresh.clear()
            await self._follow_resources()
            await asyncio.sleep(_REFRESH_AGAIN)
            await self._follow_resources()

    async def _follow_resources(self) -> None:
        """Follow what is served now. All of it is read first: an owner that waits must know all its dependents."""
        served = {info.key for info in self._client.resources() if info.key not in _IGNORED}
        for resource in served - set(self._followers):
            try:
                for obj in await self._client.list(resource):
                    self._on_event(resource, Event("ADDED", obj))
            except ApiError as error:
                logger.info("Garbage collection leaves out %s: %s", resource, error.message)
                continue
            work = follow(self._client, resource, lambda event, name=resource: self._on_event(name, event))  # type: ignore[misc]
            self._followers[resource] = asyncio.get_running_loop().create_task(work)
        for resource in set(self._followers) - served:
            self._followers.pop(resource).cancel()
            for node in [found for found in self._graph.nodes.values() if found.resource == resource]:
                self._on_gone(node)

    def _on_event(self, resource: str, event: Event) -> None:
        node = Node.of(resource, event.object)
        if event.type == "DELETED":
            self._on_gone(node)
            return
        before = self._graph.nodes.get(node.uid)
        if node == before:
            return
        self._graph.put(node)
        if node.owners or node.is_deleting:
            self._queue.add(node.uid)
        if node.waits_for_dependents:
            self._add_all(self._graph.dependents(node.uid))

    def _on_gone(self, node: Node) -> None:
        owners = node.owners
        self._graph.remove(node.uid)
        self._gone[node.uid] = None
        while len(self._gone) > _REMEMBERED_GONE:
            self._gone.popitem(last=False)
        self._add_all(self._graph.dependents(node.uid))
        for reference in owners:  # one of them may have waited for this
            self._queue.add(reference["uid"])

    def _add_all(self, nodes: list[Node]) -> None:
        for node in nodes:
            self._queue.add(node.uid)

    async def _work(self) -> None:
        while True:
            uid = await self._queue.get()
            try:
                await self._attempt(uid)
            except ApiError as error:
                delay = self._queue.retry(uid)
                logger.info("Garbage collection of %s: %s; again in %.2f s", uid, error.message, delay)
            except Exception:  # one odd object must not end the collector: it is logged and comes again
                logger.exception("Garbage collection of %s failed; again in %.2f s", uid, self._queue.retry(uid))
            else:
                self._queue.forget_failures(uid)

    async def _attempt(self, uid: str) -> None:
        node = self._graph.nodes.get(uid)
        if node is None:
            return
        if node.is_deleting:
            if node.waits_for_dependents:
                await self._continue_foreground(node)
            elif ORPHAN in node.finalizers:
                await self._orphan_dependents(node)
            return
        states = {reference["uid"]: await self._state_of(node, reference) for reference in node.owners}
        verdict = judge(node, lambda reference: states[reference["uid"]], bool(self._graph.dependents(uid)))
        if verdict.action == "trim":
            await self._drop_owners(node, verdict.drop_owners)
        elif verdict.action == "delete":
            await delete_if_same(self._client, node.resource, node.namespace, node.name, uid, verdict.propagation)

    async def _state_of(self, node: Node, reference: Obj) -> OwnerState:
        """From the graph where it is known; an absent owner is looked up before anything is deleted for it."""
        owner = self._graph.nodes.get(reference["uid"])
        if owner is not None and owner.namespace in ("", node.namespace):
            blocks = reference.get("blockOwnerDeletion")
            return "waiting" if owner.waits_for_dependents and blocks else "solid"
        if reference["uid"] in self._gone:
            return "dangling"
        group = reference["apiVersion"].rpartition("/")[0]
        served = [info for info in self._client.resources() if (info.group, info.kind) == (group, reference["kind"])]
        if not served:
            return "solid"  # its kind may come later: nothing is deleted on a guess
        namespace = node.namespace if served[0].namespaced else ""
        found = await get_or_none(self._client, served[0].key, reference["name"], namespace)
        return "solid" if found is not None and uid_of(found) == reference["uid"] else "dangling"

    async def _continue_foreground(self, node: Node) -> None:
        if not self._graph.blocking(node.uid):
            await self._remove_finalizer(node, FOREGROUND)
        self._add_all([found for found in self._graph.dependents(node.uid) if not found.is_deleting])

    async def _orphan_dependents(self, node: Node) -> None:
        for dependent in self._graph.dependents(node.uid):
            await self._drop_owners(dependent, frozenset({node.uid}))
        await self._remove_finalizer(node, ORPHAN)

    async def _drop_owners(self, node: Node, uids: frozenset[str]) -> None:
        def change(obj: Obj) -> Obj | None:
            references = obj["metadata"].get("ownerReferences") or []
            kept = without_owners(references, uids)
            if kept == references:
                return None
            obj["metadata"]["ownerReferences"] = kept
            if not kept:
                del obj["metadata"]["ownerReferences"]
            return obj

        await modify(self._client, node.resource, node.namespace, node.name, node.uid, change)

    async def _remove_finalizer(self, node: Node, finalizer: str) -> None:
        def change(obj: Obj) -> Obj | None:
            if finalizer not in finalizers_of(obj):
                return None
            obj["metadata"]["finalizers"] = [found for found in finalizers_of(obj) if found != finalizer]
            return obj

        await modify(self._client, node.resource, node.namespace, node.name, node.uid, change)
