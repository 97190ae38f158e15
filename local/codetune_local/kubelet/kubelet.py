"""The kubelet: a worker for each pod of the node, started, woken and ended by what happens in the API."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime
from pathlib import Path

from codetune_local.kubelet.addressing import POD_NETWORK, AddressPool, has_whole_loopback
from codetune_local.kubelet.containerlogs import LogOptions, read_container_log
from codetune_local.kubelet.hostnames import HostNames
from codetune_local.kubelet.node import NodeKeeper, measure_capacity
from codetune_local.kubelet.podfolders import PodFolder
from codetune_local.kubelet.podworker import PodWorker
from codetune_local.kubelet.processes import list_attempts, read_attempt
from codetune_local.kubelet.services import NodeServices
from codetune_local.kubelet.settings import KubeletSettings
from codetune_local.kubelet.shortpaths import open_short_folder
from codetune_local.kubelet.sources import find_references
from codetune_local.kubelet.sweeping import sweep_pod
from codetune_local.machinery.client import ApiError, Client, Event
from codetune_local.machinery.looping import follow
from codetune_local.machinery.objects import Obj, name_of, namespace_of, uid_of
from codetune_local.machinery.recording import Recorder
from codetune_local.machinery.times import Clock, utc_now

logger = logging.getLogger(__name__)


class Kubelet:
    """Runs the pods that are bound to its node, and reads their logs."""

    def __init__(self, client: Client, state: Path, settings: KubeletSettings, clock: Clock = utc_now) -> None:
        self._client = client
        self._settings = settings
        self._state = state
        self._workers: dict[str, PodWorker] = {}
        self._discards: set[asyncio.Task[None]] = set()
        self._keeper = NodeKeeper(client, settings, clock)
        self._node = NodeServices(
            client=client,
            recorder=Recorder(client, "kubelet", settings.node_name, clock),
            state=state,
            short_folder=open_short_folder(state),
            addresses=AddressPool(POD_NETWORK, state / "pod-addresses.json", shared=not has_whole_loopback()),
            settings=settings,
            allocatable=measure_capacity(settings.gpus),
            names=HostNames(state / "hosts"),
            clock=clock,
        )

    async def run(self) -> None:
        """Register the node, take over what runs, and serve until cancelled. Raises: ApiError at the start."""
        await self._keeper.register()
        await self._take_over()
        async with asyncio.TaskGroup() as group:
            group.create_task(follow(self._client, "pods", self._on_pod))
            group.create_task(self._keeper.run())
            for resource, mentions in _MENTIONS.items():
                group.create_task(follow(self._client, resource, self._waker(mentions)))

    async def _take_over(self) -> None:
        """Start workers for all pods, and end what belongs to none: their objects went while no kubelet ran."""
        pods = await self._client.list("pods", where=self._is_mine)
        known = {uid_of(pod) for pod in pods}
        self._reserve(known)
        for pod in pods:
            self._on_pod(Event("ADDED", pod))
        folder = self._state / "pods"
        for entry in folder.iterdir() if folder.is_dir() else ():
            if entry.name not in known:
                logger.info("Pod %s is gone from the API: what runs of it is stopped", entry.name)
                self._discard(sweep_pod(PodFolder(entry), remove=True))

    def _reserve(self, uids: set[str]) -> None:
        """Keep the addresses and GPUs of pods that are known before new ones choose theirs."""
        for uid in uids:
            meta = self._node.pod_folder(uid).meta
            if meta.exists():
                content = json.loads(meta.read_text())
                self._node.addresses_in_use[uid] = content["address"]
                self._node.gpus_in_use[uid] = tuple(content["gpus"])

    def _is_mine(self, pod: Obj) -> bool:
        return bool(pod["spec"].get("nodeName") == self._settings.node_name)

    def _on_pod(self, event: Event) -> None:
        pod = event.object
        if not self._is_mine(pod):
            return
        uid = uid_of(pod)
        worker = self._workers.get(uid)
        if event.type == "DELETED":
            if worker is not None:
                del self._workers[uid]
                self._discard(worker.discard())
        elif worker is None:
            self._workers[uid] = PodWorker(pod, self._node)
        else:
            worker.set_pod(pod)

    def _discard(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._discards.add(task)
        task.add_done_callback(self._discards.discard)

    def _waker(self, mentions: Callable[[Obj], frozenset[str]]) -> Callable[[Event], None]:
        def wake(event: Event) -> None:
            name, namespace = name_of(event.object), namespace_of(event.object)
            for worker in self._workers.values():
                if namespace_of(worker.pod) == namespace and name in mentions(worker.pod):
                    worker.refresh_sources()

        return wake

    async def shut_down(self) -> None:
        """Stop every pod in an orderly way and say that the node is down. Call it when `run` has ended."""
        grace = self._settings.shutdown_grace
        await asyncio.gather(*(worker.shut_down(grace) for worker in self._workers.values()), *self._discards)
        await self._keeper.say_stopped()

    async def read_log(
        self,
        pod: Obj,
        container: str,
        *,
        follow: bool,
        previous: bool,
        since_time: datetime | None,
        timestamps: bool,
        tail_lines: int | None,
        limit_bytes: int | None,
    ) -> AsyncIterator[bytes]:
        """A container's log as `kubectl logs` wants it. Raises: ApiError (400) when there is none."""
        attempts = list_attempts(self._node.pod_folder(uid_of(pod)).container(container))
        if previous:
            attempts = attempts[:-1]
        if not attempts:
            raise ApiError(400, "BadRequest", explain_missing_log(pod, container, previous=previous))
        folder = attempts[-1].folder
        yield b""  # there is a log: the answer may begin before its first line is written
        options = LogOptions(follow, since_time, timestamps, tail_lines, limit_bytes)
        async for piece in read_container_log(folder / "log", options, lambda: _is_running(folder)):
            yield piece


def explain_missing_log(pod: Obj, container: str, *, previous: bool) -> str:
    """Why there is nothing to read, in a kubelet's words."""
    if previous:
        return f'previous terminated container "{container}" in pod "{name_of(pod)}" not found'
    status = pod.get("status") or {}
    entries = [*(status.get("containerStatuses") or []), *(status.get("initContainerStatuses") or [])]
    found: Obj = next((entry["state"] for entry in entries if entry["name"] == container), {})
    reason = (found.get("waiting") or {}).get("reason", "ContainerCreating")
    return f'container "{container}" in pod "{name_of(pod)}" is waiting to start: {reason}'


def _is_running(attempt_folder: Path) -> bool:
    return attempt_folder.is_dir() and read_attempt(attempt_folder).is_running


_MENTIONS: dict[str, Callable[[Obj], frozenset[str]]] = {
    "configmaps": lambda pod: find_references(pod).configmaps,
    "secrets": lambda pod: find_references(pod).secrets,
    "persistentvolumeclaims": lambda pod: find_references(pod).claims,
}
