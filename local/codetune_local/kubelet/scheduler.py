"""Binding pods to the node when it has room for them, and saying why not when it has none."""

from codetune_local.kubelet.scheduling import FINAL_PHASES, find_claim_problem, find_misfits, say_misfits
from codetune_local.kubelet.sources import find_references
from codetune_local.machinery.actions import Announcement
from codetune_local.machinery.client import Client
from codetune_local.machinery.executing import write_status
from codetune_local.machinery.looping import Controller
from codetune_local.machinery.objects import (
    Key,
    Obj,
    is_being_deleted,
    key_of,
    name_of,
    namespace_of,
    set_condition,
    uid_of,
)
from codetune_local.machinery.reading import get_or_none
from codetune_local.machinery.recording import Recorder
from codetune_local.machinery.times import Clock, utc_now

EVERYTHING: Key = ("", "*")
"""Stands for all pods that wait, where room may have been made for any of them."""
LOOK_AGAIN = 5.0
"""Seconds after which all that wait are tried again even when nothing seems to have changed: together, since each by
itself would ask anew what is bound."""


class Scheduler:
    """One node, one pod at a time: decisions are taken from the live state, so that nothing is given away twice."""

    def __init__(self, client: Client, node_name: str, recorder: Recorder, clock: Clock = utc_now) -> None:
        self._client = client
        self._node_name = node_name
        self._recorder = recorder
        self._clock = clock

    def controller(self) -> Controller:
        """The loop: new pods, and everything that may have made room."""
        return Controller(
            name="scheduler",
            triggers={
                "pods": _concerned_by_pod,
                "nodes": lambda _: [EVERYTHING],
                "persistentvolumeclaims": lambda _: [EVERYTHING],
            },
            reconcile=self.reconcile,
        )

    async def reconcile(self, key: Key) -> float | None:
        """Try one pod if it waits, with all that were not tried yet, or all that wait: the most urgent first, then the
        oldest."""

        def is_due(pod: Obj) -> bool:
            return is_waiting(pod) and (key in (EVERYTHING, key_of(pod)) or not _was_tried(pod))

        pods = await self._client.list("pods", where=is_due)
        bound = await self._client.list("pods", where=self._is_bound) if pods else []
        pods.sort(key=lambda pod: (-(pod["spec"].get("priority") or 0), pod["metadata"]["creationTimestamp"]))
        for pod in pods:
            await self._schedule(pod, bound)
        return LOOK_AGAIN if key == EVERYTHING else None

    def _is_bound(self, pod: Obj) -> bool:
        return bool(pod["spec"].get("nodeName") == self._node_name)

    async def _schedule(self, pod: Obj, bound: list[Obj]) -> None:
        """Bind a pod, and add it to those that are bound; or say why not."""
        if pod["spec"].get("schedulingGates"):
            await self._refuse(
                pod, "SchedulingGated", "Scheduling is blocked due to non-empty scheduling gates", quiet=True
            )
            return
        message = await self._find_problem(pod, bound)
        if message:
            await self._refuse(pod, "Unschedulable", message)
            return
        await self._bind(pod)
        bound.append(pod)

    async def _find_problem(self, pod: Obj, bound: list[Obj]) -> str | None:
        node = await get_or_none(self._client, "nodes", self._node_name)
        if node is None:
            return "no nodes available to schedule pods"
        names = find_references(pod).claims
        found = [await get_or_none(self._client, "persistentvolumeclaims", name, namespace_of(pod)) for name in names]
        problem = find_claim_problem(pod, {name_of(claim): claim for claim in found if claim is not None})
        if problem:
            return problem
        misfits = find_misfits(pod, node, bound)
        return say_misfits(misfits) if misfits else None

    async def _bind(self, pod: Obj) -> None:
        # With its uid: a pod that was replaced by one of the same name in between must not get this decision.
        patch = {"metadata": {"uid": uid_of(pod)}, "spec": {"nodeName": self._node_name}}
        await self._client.merge_patch("pods", name_of(pod), namespace_of(pod), patch)
        text = f"Successfully assigned {namespace_of(pod)}/{name_of(pod)} to {self._node_name}"
        await self._recorder.record(Announcement(pod, "Scheduled", text))

    async def _refuse(self, pod: Obj, reason: str, message: str, *, quiet: bool = False) -> None:
        told = (pod.get("status") or {}).get("conditions") or []
        if any(known["type"] == "PodScheduled" and known.get("message") == message for known in told):
            return
        now = self._clock()

        def make(current: Obj) -> Obj:
            status = current.get("status") or {}
            conditions = set_condition(
                status.get("conditions") or [], "PodScheduled", "False", now=now, reason=reason, message=message
            )
            return {"phase": "Pending", **status, "conditions": conditions}

        await write_status(self._client, "pods", namespace_of(pod), name_of(pod), uid_of(pod), make)
        if not quiet:
            await self._recorder.record(Announcement(pod, "FailedScheduling", message, "Warning"))


def is_waiting(pod: Obj) -> bool:
    """Whether a pod is still to be bound."""
    over = (pod.get("status") or {}).get("phase") in FINAL_PHASES
    return not pod["spec"].get("nodeName") and not is_being_deleted(pod) and not over


def _concerned_by_pod(pod: Obj) -> list[Key]:
    over = (pod.get("status") or {}).get("phase") in FINAL_PHASES
    if over or is_being_deleted(pod):
        return [EVERYTHING]
    return [key_of(pod)] if is_waiting(pod) and not _was_refused(pod) else []


def _was_refused(pod: Obj) -> bool:
    """Whether there was no room for a pod: that this is told of it makes no room."""
    return _reason(pod) == "Unschedulable"


def _was_tried(pod: Obj) -> bool:
    return _reason(pod) is not None


def _reason(pod: Obj) -> str | None:
    """Why a pod is not bound, as it was told."""
    told = (pod.get("status") or {}).get("conditions") or []
    return next((known.get("reason") for known in told if known["type"] == "PodScheduled"), None)
