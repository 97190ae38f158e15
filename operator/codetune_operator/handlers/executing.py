"""Carries out plans, and writes only what is not so already."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from codetune_api.digests import digest_value
from codetune_api.metadata import ANNOTATION_CONFIG_DIGEST, FINALIZER

from codetune_operator.cluster.applying import apply
from codetune_operator.cluster.connecting import Cluster
from codetune_operator.cluster.deleting import delete
from codetune_operator.cluster.eventing import EventRecorder
from codetune_operator.cluster.kinds import CLAIM, DEPLOYMENT, JOB, POLICIES, SERVICE, kind_of
from codetune_operator.cluster.patching import drop_finalizer, patch_finalizers, patch_status
from codetune_operator.cluster.peeking import peek
from codetune_operator.cluster.pushing import push_adapters
from codetune_operator.errors import ConflictError, NamespaceTerminatingError, OperatorError
from codetune_operator.handlers.asking import ServingReports
from codetune_operator.handlers.storing import Store
from codetune_operator.reconcile.owning import check_owner
from codetune_operator.reconcile.plan import ChildRef, EventSpec, Obj, Plan

logger = logging.getLogger(__name__)

SETTLE_WAIT_SECONDS = 5.0
"""How long a serving pod may take to load adapters before the plan goes on without it."""
TRUST_SECONDS = 600.0
"""How long an object that is not watched counts as being as it was applied."""
_WATCHED = frozenset(kind.name for kind in (JOB, DEPLOYMENT, SERVICE, CLAIM, *POLICIES))


@dataclass(frozen=True)
class _Applied:
    """What was applied last, and what came of it: whose it is, and how it looked."""

    wanted: str
    uid: str
    owners: list[Obj]
    live: str
    time: float


@dataclass
class Executor:
    """Does what plans say."""

    cluster: Cluster
    store: Store
    recorder: EventRecorder
    serving: ServingReports
    wake: Callable[[Obj], None]
    """Has everyone look again who looks at an object: what is written here is no news to the watches any more."""
    clock: Callable[[], float] = time.monotonic
    _applied: dict[tuple[str, str, str], _Applied] = field(default_factory=dict)

    async def execute(self, raw: Obj, plan: Plan, pods: tuple[Obj, ...] = ()) -> bool:
        """Carry out a plan, in the order that `Plan` tells.

        Args:
            raw: The resource, as it was observed.
            plan: What to do about it.
            pods: The pods that a push goes to.

        Returns:
            Whether serving pods said something new, so that it is worth to look again at once.

        Raises:
            OperatorError: The server refused, or could not be reached; what was done before stays done.
        """
        namespace, live = raw["metadata"]["namespace"], raw
        if plan.finalizer == "Add":
            live = await self._add_finalizer(live)
        for obj in plan.apply:
            await self.apply(obj)
        for child in plan.delete:
            await self._delete(namespace, child)
        news = False
        if plan.push is not None:
            answers = await push_adapters(plan.push, wait_seconds=SETTLE_WAIT_SECONDS)
            news = self.serving.record(namespace, answers, pods)
        if plan.status is not None:
            live = await self.write_status(live, plan.status.to_wire())
        for event in plan.events:
            await self.record(live, event)
        if plan.finalizer == "Remove" and (written := await drop_finalizer(self.cluster, live=live)) is not None:
            self._take_in(written)
        return news

    async def apply(self, obj: Obj) -> None:
        """Apply an object, unless it is known to be so already.

        Raises:
            OccupiedError: What is there is not ours to change.
            OperatorError: The server refused, or could not be reached.
        """
        wanted = _sign(obj)
        place = (obj["kind"], obj["metadata"]["namespace"], obj["metadata"]["name"])
        digest = wanted["metadata"]["annotations"][ANNOTATION_CONFIG_DIGEST]
        if self._is_applied(place, obj, digest):
            return
        uid = await self._find_own(place, obj)
        try:
            live = await apply(self.cluster, obj=wanted, uid=uid)
        except ConflictError:
            # Its end was missed, so what is there is asked for the next time.
            self.forget(obj)
            if (seen := self._see(obj)) is not None:
                self.store.remove(seen)
            raise
        if obj["kind"] in _WATCHED and self.store.put(live):
            self.wake(live)
        self._applied[place] = _Applied(digest, live["metadata"]["uid"], _owners(live), _project(live), self.clock())

    async def write_status(self, live: Obj, status: Obj) -> Obj:
        """Write a status if it changed. Returns: the object as it is now."""
        written = await patch_status(self.cluster, live=live, status=status)
        if written is None:
            return live
        self._take_in(written)
        return written

    def forget(self, obj: Obj) -> None:
        """The object is gone: it has to be applied again, should it be wanted again."""
        metadata = obj["metadata"]
        self._applied.pop((obj["kind"], metadata.get("namespace", ""), metadata["name"]), None)

    def _take_in(self, written: Obj) -> None:
        """The resource itself, as it was just written: a look with what was before would repeat what is done."""
        if self.store.refresh(written):
            self.wake(written)

    def _is_applied(self, place: tuple[str, str, str], obj: Obj, digest: str) -> bool:
        applied = self._applied.get(place)
        if applied is None or applied.wanted != digest:
            return False
        if obj["kind"] not in _WATCHED:
            return self.clock() - applied.time < TRUST_SECONDS
        seen = self._see(obj)
        return seen is not None and _project(seen) == applied.live

    async def _find_own(self, place: tuple[str, str, str], obj: Obj) -> str | None:
        """The uid of the object that is to be changed; None where there is none. Raises: OperatorError.

        The API server is asked only about what was neither seen nor applied before: what somebody else made does not
        carry our label, so the watches do not tell of it.
        """
        applied = self._applied.get(place)
        if applied is not None and obj["kind"] not in _WATCHED and applied.owners == _owners(obj):
            return applied.uid
        _, namespace, name = place
        live = self._see(obj)
        if live is None:
            kind = kind_of(obj["apiVersion"], obj["kind"])
            live = await peek(self.cluster, kind=kind, namespace=namespace, name=name)
        if live is None:
            return None
        check_owner(live, obj)
        return str(live["metadata"]["uid"])

    def _see(self, obj: Obj) -> Obj | None:
        """What the watches have of an object of this kind and name."""
        metadata = obj["metadata"]
        return self.store.get(kind_of(obj["apiVersion"], obj["kind"]), metadata["namespace"], metadata["name"])

    async def record(self, live: Obj, event: EventSpec) -> None:
        """An Event that is refused must hold nothing up: what it says is in status too."""
        try:
            await self.recorder.record(about=live, event=event)
        except NamespaceTerminatingError:
            # Nobody will be there to read it; what is to be done after the end of the namespace is told here.
            if event.type == "Warning":
                logger.warning("%s: %s", live["metadata"]["name"], event.message)
        except OperatorError as error:
            told = (event.reason, live["metadata"]["name"], event.message, error)
            logger.warning("Event %s about %s, %r, is lost: %s", *told)

    async def _delete(self, namespace: str, child: ChildRef) -> None:
        known = self.store.get(kind_of(child.api_version, child.kind), namespace, child.name)
        applied = self._applied.pop((child.kind, namespace, child.name), None)
        if child.uid is None and child.kind in _WATCHED:
            if known is None:
                return  # not there, or somebody else's
            child = replace(child, uid=known["metadata"]["uid"])
        elif child.uid is None and applied is not None:
            child = replace(child, uid=applied.uid)
        if await delete(self.cluster, namespace=namespace, child=child):
            return
        # The plan came from a snapshot that holds it, so its end was missed: no watch will tell of it any more.
        if known is not None and child.uid == known["metadata"]["uid"] and self.store.remove(known):
            self.wake(known)

    async def _add_finalizer(self, live: Obj) -> Obj:
        present = live["metadata"].get("finalizers") or []
        if FINALIZER in present:
            return live
        written = await patch_finalizers(self.cluster, live=live, finalizers=[*present, FINALIZER])
        self._take_in(written)
        return written


def _sign(obj: Obj) -> Obj:
    """The object with the digest of what it was made from, so that a person sees whether it is current."""
    metadata = obj["metadata"]
    annotations = {**metadata.get("annotations", {}), ANNOTATION_CONFIG_DIGEST: digest_value(obj)}
    return {**obj, "metadata": {**metadata, "annotations": annotations}}


def _owners(obj: Obj) -> list[Obj]:
    return obj["metadata"].get("ownerReferences") or []


def _project(live: Obj) -> str:
    """Digest of what somebody could have changed about an object: not its status, nor the server's bookkeeping."""
    metadata: dict[str, Any] = live["metadata"]
    kept = {key: metadata.get(key) for key in ("uid", "labels", "annotations", "ownerReferences", "finalizers")}
    rest = {key: value for key, value in live.items() if key not in {"metadata", "status"}}
    return digest_value([kept, rest])
