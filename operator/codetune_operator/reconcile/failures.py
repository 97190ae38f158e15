"""Why pods fail, in words a person can act on: one function for Jobs and serving pods alike. Pure.

The first match in a fixed order is the answer, so that a pod with several symptoms is always reported the same way:
out of memory, image, start, what the program itself said, crash, eviction, scheduling, deadline, refused pods.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from codetune_api.common import Failure, FailureReason
from codetune_api.contracts import Terminated
from pydantic import ValidationError

from codetune_operator.reconcile.durations import seconds_until
from codetune_operator.reconcile.plan import Obj
from codetune_operator.reconcile.unschedulable import explain_unschedulable
from codetune_operator.reconcile.vllmwords import explain_words
from codetune_operator.reconcile.workloads import LOST
from codetune_operator.resources.modeldeployment.names import CONTAINER as SERVER

NO_POD_SECONDS = 60
"""How long a Job may have no pod before a person is told what may be the matter."""
_MESSAGE_LIMIT = 2000
_LOG_TAIL_BYTES = 2048
"""How much of a log stands in for a message that a program did not leave (FallbackToLogsOnError)."""
_PROTOCOL = re.compile(r"(^|\n)event=[a-z]+ nonce=[0-9a-f]{8}")
_IMAGE_REASONS = frozenset(
    {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable"}
)
_START_REASONS = frozenset(
    {
        "CreateContainerConfigError",
        "CreateContainerError",
        "RunContainerError",
        "PreCreateHookError",
        "PreStartHookError",
        "PostStartHookError",
        "StartError",
        "ContainerCannotRun",
    }
)
_ADMISSION_REASONS = ("UnexpectedAdmissionError", "OutOf", "NodeAffinity", "NodePorts", "AppArmor", "Sysctl")
_STOPPED_ON_REQUEST = frozenset({0, 75, 143})
"""Exit codes that are no failure by themselves: success, and a trainer that lost another pod or stopped on SIGTERM."""


@dataclass(frozen=True)
class _Container:
    """One container's state, as far as failures go."""

    pod: Obj
    name: str
    waiting: Mapping[str, Any]
    terminated: Mapping[str, Any]
    """How it ended: now, or before the restart that it has not come back from."""
    image: str
    restarts: int

    @property
    def spoken(self) -> Failure | None:
        """What the program's last words mean: our own programs say it, of vLLM's words some are known."""
        words = str(self.terminated.get("message", ""))
        if self.name == SERVER:
            return explain_words(words)
        try:
            spoken = Terminated.model_validate_json(words)
        except ValidationError:
            return None
        return Failure(reason=spoken.reason, message=_bounded(spoken.message), hint=_bounded(spoken.hint))


def classify(pods: Iterable[Obj], *, owner: Obj | None = None, nodes: Sequence[Obj] = ()) -> Failure | None:
    """Why these pods do not do their work; None when nothing is wrong.

    Args:
        pods: The pods that count now; those being deleted are left out by themselves.
        owner: Their Job or Deployment, for what its conditions say.
        nodes: Node objects, to say what there is when a pod fits nowhere.
    """
    living = sorted((pod for pod in pods if not _is_going(pod)), key=_newest_first, reverse=True)
    containers = [container for pod in living for container in _containers(pod)]
    for find in _ORDER:
        for container in containers:
            if failure := find(container):
                return failure
    return (
        _first(_find_evicted(pod) for pod in living)
        or _first(_find_lost(container) for container in containers)
        or _first(_find_unschedulable(pod, nodes) for pod in living)
        or _first(_find_refused(condition) for condition in _true_conditions(owner))
    )


def explain_no_pod(job: Obj, now: datetime) -> tuple[Failure | None, float | None]:
    """Why a Job never got a pod: only its events tell, which the operator does not read.

    Args:
        job: A Job that is neither suspended nor over, and none of whose pods ever ran.
        now: The present.

    Returns:
        What may be the matter, once it takes too long; and the seconds until then, while it does not.
    """
    status = job.get("status", {})
    since = status.get("startTime") or job["metadata"].get("creationTimestamp")
    if since is None or status.get("failed"):
        return None, None
    left = seconds_until(since, NO_POD_SECONDS, now)
    if left > 0:
        return None, left
    name = job["metadata"]["name"]
    failure = Failure(
        reason="StartError",
        message=f"Job {name} still lacks pods after {NO_POD_SECONDS} s: the cluster refuses to create them, for a "
        "ResourceQuota, a LimitRange, a policy of the namespace, or a priority or runtime class that does not exist.",
        hint=f"`kubectl describe job {name}` names it. Adjust the resources to the quota and limits of the namespace, "
        "give it a LimitRange with defaults where its quota wants limits, or ask who keeps the policy.",
    )
    return failure, None


def _find_out_of_memory(container: _Container) -> Failure | None:
    spoken = container.spoken
    if spoken is not None and spoken.reason == "OutOfMemory":
        return spoken
    if container.terminated.get("reason") != "OOMKilled":
        return None
    limit = _memory_limit(container)
    within = f" at its limit of {limit}" if limit else ""
    return Failure(
        reason="OutOfMemory",
        message=f"Container {container.name!r} was killed because it ran out of memory{within}.",
        hint="Raise spec.resources.memory (for a Project files.quality.resources, or the operator's scanResources), or "
        "make the work smaller: for a FineTune a smaller training.sequenceLength or lora.rank, or "
        "training.gradientCheckpointing: On; for a ModelDeployment a smaller engine.maxModelLen.",
    )


def _find_image(container: _Container) -> Failure | None:
    reason = container.waiting.get("reason", "")
    if reason not in _IMAGE_REASONS:
        return None
    return Failure(
        reason="ImagePull",
        message=_bounded(f"Image {container.image!r} cannot be pulled ({reason}): {_said(container.waiting)}"),
        hint="Check spec.image and spec.imagePullSecrets, where the resource has them, else the operator's setting "
        "`images` (name, tag, pullSecrets); and that the nodes reach the registry.",
    )


def _find_start_error(container: _Container) -> Failure | None:
    for state in (container.waiting, container.terminated):
        reason = state.get("reason", "")
        if reason in _START_REASONS:
            return Failure(
                reason="StartError",
                message=_bounded(f"Container {container.name!r} cannot start ({reason}): {_said(state)}"),
                hint="Create the Secret, ConfigMap or key that the message names, or correct the reference in spec."
                if reason == "CreateContainerConfigError"
                else "See `kubectl describe pod` for the node's own words; the pod is tried again by itself.",
            )
    return None


def _find_told(container: _Container) -> Failure | None:
    return container.spoken


def _find_crash(container: _Container) -> Failure | None:
    code = container.terminated.get("exitCode", 0)
    lost = container.terminated.get("reason") == LOST
    # vLLM shuts down in good order when its engine dies, with exit code 0; asked to end, a server leaves no words.
    silent = container.name != SERVER or code or not container.terminated.get("message")
    if (code in _STOPPED_ON_REQUEST and silent) or lost or _is_evicted(container.pod):
        return None
    signal = container.terminated.get("signal") or (code - 128 if 128 < code < 160 else 0)
    how = f"was killed by signal {signal}" if signal else f"ended with exit code {code}"
    again = f", {container.restarts} restarts so far" if container.restarts else ""
    words = _last_words(container.terminated)
    return Failure(
        reason="CrashLoop",
        message=_bounded(f"Container {container.name!r} {how}{again}. Its last words: {words}"),
        hint="SIGKILL from outside, most often the node's memory: ask for more in spec.resources.memory."
        if signal == 9
        else f"Read its log: kubectl logs {container.pod['metadata']['name']} -c {container.name}"
        + (" --previous" if container.restarts else ""),
    )


_ORDER: tuple[Callable[[_Container], Failure | None], ...] = (
    _find_out_of_memory,
    _find_image,
    _find_start_error,
    _find_told,
    _find_crash,
)


def _find_evicted(pod: Obj) -> Failure | None:
    status = pod.get("status", {})
    reason = status.get("reason", "")
    if status.get("phase") == "Failed" and reason.startswith(_ADMISSION_REASONS):
        return Failure(
            reason="StartError",
            message=_bounded(f"The node refused the pod ({reason}): {_said(status)}"),
            hint="The node had no room any more when the pod arrived; it is tried again by itself.",
        )
    if not _is_evicted(pod):
        return None
    disruption = _conditions(pod).get("DisruptionTarget", {})
    words = _said(status, default="") or _said(disruption)
    return Failure(
        reason="Evicted",
        message=_bounded(f"The pod was evicted ({disruption.get('reason') or reason or 'Evicted'}): {words}"),
        hint="The node ran short of memory or disk, or made room: ask for what the pod really uses in spec.resources, "
        "or give it a higher scheduling.priorityClassName.",
    )


def _find_lost(container: _Container) -> Failure | None:
    if container.terminated.get("reason") != LOST:
        return None
    node = container.pod.get("spec", {}).get("nodeName", "")
    return Failure(
        reason="Evicted",
        message=_bounded(f"The node {node} lost container {container.name!r}: {_said(container.terminated)}"),
        hint="The node or its container runtime was started anew, or reset; nothing is known to be wrong with the "
        "program itself.",
    )


def _find_unschedulable(pod: Obj, nodes: Sequence[Obj]) -> Failure | None:
    scheduled = _conditions(pod).get("PodScheduled", {})
    if scheduled.get("status") != "False" or scheduled.get("reason") == "SchedulingGated":
        return None
    return explain_unschedulable(pod, str(scheduled.get("message", "")), nodes)


_OWNER_CONDITIONS: Mapping[str, tuple[FailureReason, str, str]] = {
    "DeadlineExceeded": (
        "DeadlineExceeded",
        "The run was stopped at its deadline",
        "Raise spec.activeDeadlineSeconds: the run then goes on from its last checkpoint.",
    ),
    "FailedCreate": (
        "StartError",
        "The cluster refused to create a pod",
        "Adjust spec.resources to the quota and limits of the namespace, or ask who keeps the policy that it names.",
    ),
    "BackoffLimitExceeded": (
        "CrashLoop",
        "The run failed more often than spec.retries allows, and its pods are gone",
        "Raise spec.retries: the run then goes on from its last checkpoint.",
    ),
    "PodFailurePolicy": (
        "InternalError",
        "The run failed for good, and its pod is gone",
        "See the operator's log and the events of this resource.",
    ),
}


def _find_refused(condition: Mapping[str, Any]) -> Failure | None:
    found = _OWNER_CONDITIONS.get(condition.get("reason", ""))
    if found is None:
        return None
    reason, sentence, hint = found
    return Failure(reason=reason, message=_bounded(f"{sentence}: {_said(condition)}"), hint=hint)


def _containers(pod: Obj) -> Iterator[_Container]:
    status = pod.get("status", {})
    for entry in [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]:
        state, last = entry.get("state", {}), entry.get("lastState", {})
        # A container that came back has left its former end behind, unless it keeps coming back.
        again = "waiting" in state or (entry.get("restartCount", 0) > 1 and not entry.get("ready"))
        ended = state.get("terminated") or (last.get("terminated") if again else None) or {}
        yield _Container(
            pod=pod,
            name=entry.get("name", ""),
            waiting=state.get("waiting") or {},
            terminated=ended,
            image=entry.get("image", ""),
            restarts=entry.get("restartCount", 0),
        )


def _memory_limit(container: _Container) -> str:
    spec = container.pod.get("spec", {})
    for entry in [*spec.get("initContainers", []), *spec.get("containers", [])]:
        if entry.get("name") == container.name:
            return str(entry.get("resources", {}).get("limits", {}).get("memory", ""))
    return ""


def _is_going(pod: Obj) -> bool:
    return bool(pod.get("metadata", {}).get("deletionTimestamp"))


def _is_evicted(pod: Obj) -> bool:
    status = pod.get("status", {})
    return status.get("phase") == "Failed" and (
        status.get("reason") in {"Evicted", "Preempting", "NodeLost", "Shutdown", "Terminated", "NodeShutdown"}
        or _conditions(pod).get("DisruptionTarget", {}).get("status") == "True"
    )


def _conditions(obj: Obj) -> dict[str, Mapping[str, Any]]:
    return {entry["type"]: entry for entry in obj.get("status", {}).get("conditions", [])}


def _true_conditions(owner: Obj | None) -> Iterator[Mapping[str, Any]]:
    for kind, condition in _conditions(owner or {}).items():
        if kind in {"Failed", "FailureTarget", "ReplicaFailure"} and condition.get("status") == "True":
            yield condition


def _newest_first(pod: Obj) -> tuple[str, str]:
    metadata = pod.get("metadata", {})
    return str(metadata.get("creationTimestamp", "")), str(metadata.get("name", ""))


def _first(found: Iterable[Failure | None]) -> Failure | None:
    return next((failure for failure in found if failure), None)


def _said(state: Mapping[str, Any], default: str = "no message was given") -> str:
    return " ".join(str(state.get("message") or "").split()) or default


def _last_words(ended: Mapping[str, Any]) -> str:
    """What a program wrote before it ended.

    Where it left no message, its node gives the end of its log instead. Of that, the protocol's lines are for the
    operator alone, and what is as long as a node gives at most begins within a line, which may be one of them.
    """
    text = str(ended.get("message") or "")
    lines = text.splitlines()
    if _is_protocol(text) and len(text.encode()) >= _LOG_TAIL_BYTES - 3:
        lines = lines[1:]
    said = " ".join(word for line in lines if not _is_protocol(line) for word in line.split())
    return said or "it left no message"


def _is_protocol(text: str) -> bool:
    return _PROTOCOL.search(text) is not None


def _bounded(text: str) -> str:
    return text if len(text) <= _MESSAGE_LIMIT else text[: _MESSAGE_LIMIT - 1] + "…"
