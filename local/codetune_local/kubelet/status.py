"""A pod's status from the state of its containers. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from codetune_local.kubelet.planning import ContainerView, PodPlan
from codetune_local.kubelet.processes import Attempt
from codetune_local.machinery.objects import Obj, is_condition_true, key_of, set_condition, uid_of
from codetune_local.machinery.quantities import parse_quantity
from codetune_local.machinery.times import format_time

_EPOCH = "1970-01-01T00:00:00Z"


@dataclass(frozen=True)
class PodFacts:
    """What the status tells beside the containers."""

    pod_ip: str
    host_ip: str
    started_at: datetime
    """When the kubelet took the pod."""
    phase: str | None = None
    """The final phase, where something else than the containers decided it."""
    reason: str = ""
    message: str = ""


def build_status(
    pod: Obj,
    inits: Sequence[ContainerView],
    mains: Sequence[ContainerView],
    plan: PodPlan,
    facts: PodFacts,
    now: datetime,
) -> Obj:
    """The whole status; conditions that others set are kept."""
    old = pod.get("status") or {}
    phase = facts.phase or plan.phase or _phase(mains)
    status: Obj = {
        "phase": phase,
        "hostIP": facts.host_ip,
        "hostIPs": [{"ip": facts.host_ip}],
        "podIP": facts.pod_ip,
        "podIPs": [{"ip": facts.pod_ip}],
        "startTime": old.get("startTime") or format_time(facts.started_at),
        "qosClass": old.get("qosClass") or quality_of_service(pod),
        "observedGeneration": pod["metadata"].get("generation", 1),
    }
    status |= {key: old[key] for key in ("nominatedNodeName", "resize") if key in old}
    status |= {key: value for key, value in (("reason", facts.reason), ("message", facts.message)) if value}
    if inits:
        status["initContainerStatuses"] = [_container_status(pod, view, plan, is_init=True) for view in inits]
    status["containerStatuses"] = [_container_status(pod, view, plan, is_init=False) for view in mains]
    status["conditions"] = _conditions(pod, inits, mains, plan, phase, now)
    return status


def _phase(mains: Sequence[ContainerView]) -> str:
    return "Running" if mains and all(view.last is not None for view in mains) else "Pending"


def _container_status(pod: Obj, view: ContainerView, plan: PodPlan, *, is_init: bool) -> Obj:
    last = view.last
    waiting = _waiting(pod, view, plan, is_init)
    ended_before = view.attempts[-2] if len(view.attempts) > 1 else None
    if waiting is not None:
        state, ended_before = {"waiting": waiting}, last
    elif last is not None and last.is_running:
        state = {"running": {"startedAt": _time(last.started_at)}}
    else:
        assert last is not None  # nothing ran and nothing waits is impossible: _waiting covers it
        state = {"terminated": terminated_state(last)}
    running = last is not None and last.is_running
    completed_init = is_init and last is not None and last.exit_code == 0 and not view.is_sidecar
    status: Obj = {
        "name": view.name,
        "image": view.spec["image"],
        "imageID": f"local/{view.spec['image']}" if last is not None else "",
        "ready": bool(completed_init or (running and view.is_started and view.is_ready)),
        "started": bool(running and view.is_started),
        "restartCount": last.number if last is not None else 0,
        "state": state,
        "lastState": {"terminated": terminated_state(ended_before)} if ended_before is not None else {},
    }
    if last is not None:
        status["containerID"] = last.id
    return status


def _waiting(pod: Obj, view: ContainerView, plan: PodPlan, is_init: bool) -> Obj | None:
    if view.is_running:
        return None
    if view.problem is not None:
        return {"reason": view.problem[0], "message": view.problem[1]}
    delay = plan.backing_off.get(view.name)
    if delay is not None:
        namespace, name = key_of(pod)
        text = (
            f"back-off {say_delay(delay)} restarting failed container={view.name} pod={name}_{namespace}({uid_of(pod)})"
        )
        return {"reason": "CrashLoopBackOff", "message": text}
    if view.last is None:
        has_inits = bool(pod["spec"].get("initContainers"))
        return {"reason": "PodInitializing" if has_inits and not is_init else "ContainerCreating"}
    return None


def say_delay(seconds: float) -> str:
    """As Go prints a duration: 10s, 2m40s."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"


def terminated_state(attempt: Attempt) -> Obj:
    """ContainerStateTerminated of a run that ended."""
    code = attempt.exit_code or 0
    state: Obj = {
        "exitCode": code,
        "reason": attempt.reason or ("Completed" if code == 0 else "Error"),
        "startedAt": _time(attempt.started_at),
        "finishedAt": _time(attempt.finished_at),
        "containerID": attempt.id,
    }
    if attempt.signal:
        state["signal"] = attempt.signal
    if attempt.message:
        state["message"] = attempt.message
    return state


def _time(moment: datetime | None) -> str:
    return format_time(moment) if moment is not None else _EPOCH


def _conditions(
    pod: Obj,
    inits: Sequence[ContainerView],
    mains: Sequence[ContainerView],
    plan: PodPlan,
    phase: str,
    now: datetime,
) -> list[Obj]:
    old: list[Obj] = (pod.get("status") or {}).get("conditions") or []
    incomplete = [view.name for view in inits if not _init_done(view)]
    initialized = plan.is_initialized or phase == "Succeeded"
    unready = [view.name for view in mains if not (view.is_running and view.is_started and view.is_ready)]
    gates = [gate["conditionType"] for gate in pod["spec"].get("readinessGates") or []]
    closed = [gate for gate in gates if not is_condition_true(pod, gate)]
    not_ready = ("ContainersNotReady", f"containers with unready status: [{' '.join(unready)}]")
    if phase in ("Succeeded", "Failed"):
        not_ready = ("PodCompleted" if phase == "Succeeded" else "PodFailed", "")
    ready = not unready and phase == "Running"
    gate_text = ("ReadinessGatesNotReady", f"corresponding condition of pod readiness gate {closed} is not True")
    wanted: list[tuple[str, bool, tuple[str, str]]] = [
        ("PodReadyToStartContainers", phase in ("Pending", "Running"), ("", "")),
        (
            "Initialized",
            initialized,
            ("ContainersNotInitialized", f"containers with incomplete status: [{' '.join(incomplete)}]"),
        ),
        ("Ready", ready and not closed, not_ready if not ready else gate_text),
        ("ContainersReady", ready, not_ready),
    ]
    for kind, is_true, (reason, message) in wanted:
        if is_true:
            completed = kind == "Initialized" and phase == "Succeeded"
            old = set_condition(old, kind, "True", now=now, reason="PodCompleted" if completed else "")
        else:
            old = set_condition(old, kind, "False", now=now, reason=reason, message=message)
    return set_condition(old, "PodScheduled", "True", now=now)


def _init_done(view: ContainerView) -> bool:
    if view.is_sidecar:
        return view.is_running and view.is_started
    return view.last is not None and view.last.exit_code == 0


def quality_of_service(pod: Obj) -> str:
    """Guaranteed, Burstable or BestEffort, from requests and limits of cpu and memory."""
    containers = [*pod["spec"]["containers"], *(pod["spec"].get("initContainers") or [])]
    resources = [container.get("resources") or {} for container in containers]
    asked = [_cpu_and_memory(entry.get("requests")) for entry in resources]
    limits = [_cpu_and_memory(entry.get("limits")) for entry in resources]
    if not any(asked) and not any(limits):
        return "BestEffort"
    same = all(len(top) == 2 and (not low or {**top, **low} == top) for low, top in zip(asked, limits, strict=True))
    return "Guaranteed" if same else "Burstable"


def _cpu_and_memory(quantities: Obj | None) -> dict[str, Decimal]:
    amounts = {name: parse_quantity(value) for name, value in (quantities or {}).items() if name in ("cpu", "memory")}
    return {name: amount for name, amount in amounts.items() if amount}
