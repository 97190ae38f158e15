"""Which containers of a pod to start, restart or stop now. Pure: the state of the runs in, a plan out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from codetune_local.kubelet.processes import Attempt
from codetune_local.machinery.objects import Obj


@dataclass(frozen=True)
class Backoff:
    """How long a container that keeps ending waits before it is started again (seconds)."""

    base: float = 10.0
    cap: float = 300.0
    reset_after: float = 600.0
    """A run that lasted this long starts the count anew."""

    def delay(self, crashes: int) -> float:
        """Before the run that follows `crashes` short ones in a row: the first restart is at once."""
        return 0.0 if crashes <= 1 else min(self.cap, self.base * 2.0 ** min(crashes - 2, 30))


@dataclass(frozen=True)
class ContainerView:
    """A container as far as it has come."""

    spec: Obj
    attempts: tuple[Attempt, ...] = ()
    is_started: bool = False
    """The startup probe was passed, or there is none."""
    is_ready: bool = False
    """The readiness probe is passed, or there is none."""
    problem: tuple[str, str] | None = None
    """Why it can't be created: waiting reason and message."""
    retry_at: datetime | None = None
    """When creating it is tried again."""

    @property
    def name(self) -> str:
        """The container's name."""
        name: str = self.spec["name"]
        return name

    @property
    def last(self) -> Attempt | None:
        """The latest run."""
        return self.attempts[-1] if self.attempts else None

    @property
    def is_running(self) -> bool:
        """Whether its latest run has not ended."""
        return self.last is not None and self.last.is_running

    @property
    def is_sidecar(self) -> bool:
        """Whether it is an init container that stays."""
        return self.spec.get("restartPolicy") == "Always"


@dataclass(frozen=True)
class Start:
    """Start a container."""

    name: str
    number: int
    crashes: int


@dataclass(frozen=True)
class PodPlan:
    """What to do now."""

    starts: tuple[Start, ...] = ()
    stops: tuple[str, ...] = ()
    """Running containers that are not wanted any more."""
    is_initialized: bool = False
    backing_off: Mapping[str, float] = field(default_factory=dict)
    """Container → the whole delay (seconds) that it is waiting for."""
    phase: str | None = None
    """Succeeded or Failed once nothing will run any more."""
    look_again: float | None = None
    """Seconds."""


def plan_pod(
    pod: Obj, inits: Sequence[ContainerView], mains: Sequence[ContainerView], now: datetime, backoff: Backoff
) -> PodPlan:
    """The next steps of a pod that is neither being deleted nor over its deadline."""
    policy = pod["spec"].get("restartPolicy", "Always")
    planner = _Planner(policy, now, backoff)
    sidecars = [view for view in inits if view.is_sidecar]
    begun = any(view.attempts for view in mains)  # then initialization is over, whatever becomes of a sidecar
    if begun and all(view.last and not view.is_running and not planner.wants(view, policy) for view in mains):
        return planner.finish(sidecars, mains, initialized=True)
    initialized = begun or planner.plan_inits(inits)
    if planner.failed:
        return planner.finish(sidecars, inits, initialized=False)
    if begun:
        for view in sidecars:
            planner.plan_container(view, "Always")
    if initialized:
        for view in mains:
            planner.plan_container(view, policy)
    return planner.result(initialized)


class _Planner:
    """Collects the parts of a plan."""

    def __init__(self, policy: str, now: datetime, backoff: Backoff) -> None:
        self._policy = policy
        self._now = now
        self._backoff = backoff
        self._starts: list[Start] = []
        self._backing_off: dict[str, float] = {}
        self._waits: list[float] = []
        self.failed = False

    def plan_inits(self, inits: Sequence[ContainerView]) -> bool:
        """Plan init containers in their order; returns whether the others may start."""
        for view in inits:
            if view.is_sidecar:
                self.plan_container(view, "Always")
                if not (view.is_running and view.is_started):
                    return False
            elif not self._passed_init(view):
                return False
        return True

    def _passed_init(self, view: ContainerView) -> bool:
        if view.last is not None and view.last.exit_code == 0:
            return True
        if view.last is not None and not view.is_running and self._policy == "Never":
            self.failed = True
        else:
            self.plan_container(view, "OnFailure")
        return False

    def wants(self, view: ContainerView, policy: str) -> bool:
        """Whether the policy asks for another run after one that ended."""
        return policy == "Always" or (policy == "OnFailure" and view.last is not None and view.last.exit_code != 0)

    def plan_container(self, view: ContainerView, policy: str) -> None:
        """Start it for the first time, or again once its delay has passed."""
        if view.is_running:
            return
        number, crashes = 0, 0
        last = view.last
        if last is not None:
            if not self.wants(view, policy):
                return
            number, crashes = last.number + 1, self._crashes(last)
            delay = self._backoff.delay(crashes)
            due = (last.finished_at or self._now) + timedelta(seconds=delay)
            if due > self._now:
                self._backing_off[view.name] = delay
                self._waits.append((due - self._now).total_seconds())
                return
        if view.retry_at is not None and view.retry_at > self._now:
            self._waits.append((view.retry_at - self._now).total_seconds())
            return
        self._starts.append(Start(view.name, number, crashes))

    def _crashes(self, last: Attempt) -> int:
        if last.started_at and last.finished_at:
            lasted = (last.finished_at - last.started_at).total_seconds()
            if lasted >= self._backoff.reset_after:
                return 1
        return last.crashes + 1

    def finish(self, sidecars: list[ContainerView], deciders: Sequence[ContainerView], *, initialized: bool) -> PodPlan:
        """The pod is over: stop the sidecars, the last one first, then it has its final phase."""
        running = [view.name for view in sidecars if view.is_running]
        if running:
            return PodPlan(stops=(running[-1],), is_initialized=initialized)
        failed = any(view.last is not None and view.last.exit_code for view in deciders if not view.is_sidecar)
        return PodPlan(is_initialized=initialized, phase="Failed" if failed else "Succeeded")

    def result(self, initialized: bool) -> PodPlan:
        """The plan of a pod that goes on."""
        return PodPlan(
            starts=tuple(self._starts),
            is_initialized=initialized,
            backing_off=self._backing_off,
            look_again=min(self._waits, default=None),
        )
