"""One pod on this node: a loop that brings its containers where its spec wants them.

Each round looks at everything anew (spec, runs on disk, probes), makes a plan, carries it out and tells how it is. What
wakes it: a change of the pod or of a ConfigMap or Secret that it uses, the end of a container, a probe's verdict, a
date.
"""

import asyncio
import json
import logging
from datetime import datetime, timedelta
from pathlib import Path

from codetune_local.kubelet.container import ContainerRunner
from codetune_local.kubelet.devices import choose_gpus
from codetune_local.kubelet.errors import VolumeError
from codetune_local.kubelet.hostnames import list_names
from codetune_local.kubelet.launching import Placement
from codetune_local.kubelet.planning import PodPlan, plan_pod
from codetune_local.kubelet.services import NodeServices
from codetune_local.kubelet.settings import GPU_RESOURCE, HOST_IP
from codetune_local.kubelet.shim import write_json
from codetune_local.kubelet.sources import fetch_sources
from codetune_local.kubelet.status import PodFacts, build_status
from codetune_local.kubelet.volumes import VolumeSources, make_volumes
from codetune_local.machinery.actions import Announcement
from codetune_local.machinery.client import ApiError
from codetune_local.machinery.executing import delete_if_same, write_status
from codetune_local.machinery.objects import Obj, is_being_deleted, name_of, namespace_of, set_condition, uid_of
from codetune_local.machinery.quantities import add_amounts, parse_amounts
from codetune_local.machinery.times import parse_time

logger = logging.getLogger(__name__)
VOLUME_RETRY = 1.0
ERROR_RETRY = 1.0
"""Seconds."""
FINAL_PHASES = ("Succeeded", "Failed")
FORCED_GRACE = 1.0
"""Seconds that a pod gets whose object is gone already."""


class PodWorker:
    """Runs one pod until its object is gone."""

    def __init__(self, pod: Obj, node: NodeServices) -> None:
        self.pod = pod
        self._node = node
        self._wake_up = asyncio.Event()
        self._uid = uid_of(pod)
        self._folder = node.pod_folder(self._uid)
        self._sources: VolumeSources | None = None
        self._sources_are_stale = True
        self._placement: Placement | None = None
        self._stops: dict[str, asyncio.Task[None]] = {}
        self._admitted_at = node.clock()
        self._adopted = False
        spec = pod["spec"]
        self._inits = [self._runner(found, "initContainers") for found in spec.get("initContainers") or []]
        self._mains = [self._runner(found, "containers") for found in spec["containers"]]
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"pod {name_of(pod)}")

    def _runner(self, spec: Obj, field: str) -> ContainerRunner:
        return ContainerRunner(spec, f"spec.{field}{{{spec['name']}}}", self._node, self._wake_up.set)

    @property
    def _runners(self) -> list[ContainerRunner]:
        return [*self._inits, *self._mains]

    def set_pod(self, pod: Obj) -> None:
        """The object has changed."""
        specs = {
            found["name"]: found for found in [*(pod["spec"].get("initContainers") or []), *pod["spec"]["containers"]]
        }
        for runner in self._runners:
            if runner.spec != specs[runner.spec["name"]]:  # of a container only its image can change
                runner.spec = specs[runner.spec["name"]]
                runner.retry_now()
        # A change of its status alone is our own doing: nothing follows from it.
        changed = any(pod["metadata"].get(key) != self.pod["metadata"].get(key) for key in _WAKING) or (
            pod["spec"] != self.pod["spec"]
        )
        self.pod = pod
        if changed:
            self._sources_are_stale = True
            self._wake_up.set()

    def refresh_sources(self) -> None:
        """A ConfigMap, Secret or claim of its namespace has changed."""
        self._sources_are_stale = True
        for runner in self._runners:
            runner.retry_now()
        self._wake_up.set()

    async def _run(self) -> None:
        while True:
            self._wake_up.clear()
            try:
                again = await self._sync()
            except ApiError as error:
                logger.info("Pod %s: %s; again in %.0f s", name_of(self.pod), error.message, ERROR_RETRY)
                again = ERROR_RETRY
            except Exception:  # one broken pod must not end the node: it is logged and comes again
                logger.exception("Pod %s failed; again in %.0f s", name_of(self.pod), ERROR_RETRY)
                again = ERROR_RETRY
            try:
                async with asyncio.timeout(again):
                    await self._wake_up.wait()
            except TimeoutError:
                continue

    async def _sync(self) -> float | None:
        """One round; returns after how many seconds the next one is due."""
        self._place()
        if is_being_deleted(self.pod):
            await self._adopt()
            await self._terminate()
            return None
        if (self.pod.get("status") or {}).get("phase") in FINAL_PHASES:
            self._release()
            return None
        try:
            await self._mount()
        except VolumeError as error:
            await self._record("FailedMount", str(error), "Warning")
            await self._write(PodPlan(), PodFacts(self._address, HOST_IP, self._admitted_at))
            return VOLUME_RETRY
        await self._adopt()
        left = self._seconds_left()
        if left is not None and left <= 0:
            await self._exceed_deadline()
            return None
        again = await self._carry_out()
        return min((wait for wait in (again, left) if wait is not None), default=None)

    async def _carry_out(self) -> float | None:
        plan = self._plan()
        if plan.starts:  # the address must be in status before a container asks for it
            await self._write(plan, PodFacts(self._address, HOST_IP, self._admitted_at))
        assert self._sources is not None  # _mount has run
        assert self._placement is not None
        for step in plan.starts:
            runner = next(found for found in self._runners if found.spec["name"] == step.name)
            await runner.start(self._pod_with_address(), step, self._sources, self._placement)
        for name in plan.stops:
            runner = next(found for found in self._runners if found.spec["name"] == name)
            runner.begin_stop(self.pod, self._grace(), f"Stopping container {name}")
        plan = self._plan()
        for name in plan.backing_off:
            where = f"{name_of(self.pod)}_{namespace_of(self.pod)}({self._uid})"
            await self._record("BackOff", f"Back-off restarting failed container {name} in pod {where}", "Warning")
        await self._write(plan, PodFacts(self._address, HOST_IP, self._admitted_at))
        if plan.phase is not None:
            self._release()
        return 0.0 if plan.starts and plan.look_again is None else plan.look_again

    def _plan(self) -> PodPlan:
        inits, mains = [runner.view for runner in self._inits], [runner.view for runner in self._mains]
        return plan_pod(self.pod, inits, mains, self._node.clock(), self._node.settings.restart_backoff)

    def _place(self) -> None:
        """Give the pod its folder, address and GPUs; after a restart of the kubelet it keeps them."""
        if self._placement is not None:
            return
        self._folder.make([runner.spec["name"] for runner in self._runners])
        if self._folder.meta.exists():
            meta = json.loads(self._folder.meta.read_text())
            address, gpus = meta["address"], tuple(meta["gpus"])
            self._admitted_at = parse_time(meta["admitted_at"])
        else:
            taken = [index for used in self._node.gpus_in_use.values() for index in used]
            gpus = choose_gpus(count_gpus(self.pod), taken)
            address = self._node.addresses.take(self._node.addresses_in_use.values())
            meta = {"namespace": namespace_of(self.pod), "name": name_of(self.pod), "address": address, "gpus": gpus}
            moment = self._admitted_at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
            write_json(str(self._folder.meta), {**meta, "admitted_at": moment})
        self._node.addresses_in_use[self._uid] = address
        self._node.gpus_in_use[self._uid] = gpus
        if (self.pod.get("status") or {}).get("phase") not in FINAL_PHASES:
            self._node.names.add(self.pod, address)
        self._placement = Placement(self._folder, {}, address, gpus, (), self._hosts)

    @property
    def _hosts(self) -> Path | None:
        return self._node.names.path if list_names(self.pod) else None

    @property
    def _address(self) -> str:
        return self._node.addresses_in_use[self._uid]

    def _pod_with_address(self) -> Obj:
        status = {**(self.pod.get("status") or {}), "podIP": self._address, "podIPs": [{"ip": self._address}]}
        return {**self.pod, "status": {**status, "hostIP": HOST_IP}}

    async def _mount(self) -> None:
        """Make or refresh the volumes."""
        if not self._sources_are_stale and self._sources is not None:
            return
        self._sources_are_stale = False
        try:
            sources = await fetch_sources(self._node.client, self.pod, self._node.allocatable)
            volumes = make_volumes(self._pod_with_address(), self._folder.volumes, sources)
        except (ApiError, VolumeError):
            self._sources_are_stale = True
            if self._adopted:  # what runs keeps what it has: a ConfigMap may be deleted under a running pod
                return
            raise
        self._sources = sources
        gpus = self._node.gpus_in_use[self._uid]
        self._placement = Placement(self._folder, volumes, self._address, gpus, (), self._hosts)

    async def _adopt(self) -> None:
        if self._adopted:
            return
        self._place()
        assert self._placement is not None
        for runner in self._runners:
            await runner.adopt(self._pod_with_address(), self._sources, self._placement)
        self._adopted = True

    def _seconds_left(self) -> float | None:
        limit = self.pod["spec"].get("activeDeadlineSeconds")
        if limit is None:
            return None
        return (self._admitted_at + timedelta(seconds=limit) - self._node.clock()).total_seconds()

    async def _exceed_deadline(self) -> None:
        message = "Pod was active on the node longer than the specified deadline"
        await self._record("DeadlineExceeded", message)
        await self._stop_all(self._grace())
        facts = PodFacts(self._address, HOST_IP, self._admitted_at, "Failed", "DeadlineExceeded", message)
        await self._write(self._plan(), facts)
        self._release()

    async def _terminate(self) -> None:
        """Stop everything, tell how it ended, and let the object go."""
        grace = self.pod["metadata"].get("deletionGracePeriodSeconds")
        await self._stop_all(self._grace() if grace is None else float(grace))
        if (self.pod.get("status") or {}).get("phase") not in FINAL_PHASES:
            await self._write(self._plan(), self._facts_of_the_end())
        self._release()
        key = namespace_of(self.pod), name_of(self.pod), self._uid
        await delete_if_same(self._node.client, "pods", *key, grace_period_seconds=0)

    def _facts_of_the_end(self, reason: str = "", message: str = "") -> PodFacts:
        views = [runner.view for runner in self._mains]
        succeeded = all(view.last is not None and view.last.exit_code == 0 for view in views)
        phase = "Succeeded" if succeeded and not reason else "Failed"
        return PodFacts(self._address, HOST_IP, self._admitted_at, phase, reason, message)

    async def _stop_all(self, grace: float) -> None:
        """Main containers together, then what came before them, the last one first."""
        async with asyncio.TaskGroup() as group:
            for runner in self._mains:
                group.create_task(runner.stop(self.pod, grace, f"Stopping container {runner.spec['name']}"))
        for runner in reversed(self._inits):
            await runner.stop(self.pod, grace, f"Stopping container {runner.spec['name']}")

    def _grace(self) -> float:
        return float(self.pod["spec"].get("terminationGracePeriodSeconds", 30))

    def _release(self) -> None:
        self._node.gpus_in_use.pop(self._uid, None)
        self._node.names.remove(self.pod, self._node.addresses_in_use.get(self._uid, ""))

    async def _record(self, reason: str, message: str, kind: str = "Normal") -> None:
        await self._node.recorder.record(
            Announcement(self.pod, reason, message, "Warning" if kind == "Warning" else "Normal")
        )

    async def _write(self, plan: PodPlan, facts: PodFacts) -> None:
        inits, mains = [runner.view for runner in self._inits], [runner.view for runner in self._mains]
        now: datetime = self._node.clock()
        key = namespace_of(self.pod), name_of(self.pod), self._uid

        def make(current: Obj) -> Obj:
            return build_status(current, inits, mains, plan, facts, now)

        await write_status(self._node.client, "pods", *key, make)

    async def shut_down(self, grace: float) -> None:
        """The node goes down in an orderly way: stop the pod and say that it was not its fault."""
        self._task.cancel()
        if not any(runner.view.is_running for runner in self._runners):
            return
        await self._stop_all(min(grace, self._grace()))
        reason, message = "Terminated", "Pod was terminated in response to imminent node shutdown."
        inits, mains = [runner.view for runner in self._inits], [runner.view for runner in self._mains]
        facts, now = self._facts_of_the_end(reason, message), self._node.clock()

        def make(current: Obj) -> Obj:
            status = build_status(current, inits, mains, self._plan(), facts, now)
            disrupted = {"reason": "TerminationByKubelet", "message": message}
            status["conditions"] = set_condition(status["conditions"], "DisruptionTarget", "True", now=now, **disrupted)
            return status

        await write_status(self._node.client, "pods", namespace_of(self.pod), name_of(self.pod), self._uid, make)

    async def discard(self) -> None:
        """The object is gone: end what still runs and remove the files."""
        self._task.cancel()
        await self._stop_all(FORCED_GRACE)
        for runner in self._runners:
            runner.forsake()
        self._release()
        self._node.addresses_in_use.pop(self._uid, None)
        await asyncio.to_thread(self._folder.remove)


_WAKING = ("labels", "annotations", "deletionTimestamp", "deletionGracePeriodSeconds")


def count_gpus(pod: Obj) -> int:
    """How many GPUs a pod asks for."""
    amounts = add_amounts(
        parse_amounts({**(resources.get("requests") or {}), **(resources.get("limits") or {})})
        for resources in (container.get("resources") or {} for container in pod["spec"]["containers"])
    )
    return int(amounts.get(GPU_RESOURCE, 0))
