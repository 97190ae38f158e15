"""What Jobs and pods say, read off their JSON. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from codetune_operator.reconcile.plan import Obj

_INDEX_LABEL = "batch.kubernetes.io/job-completion-index"
_TEMPLATE_LABEL = "pod-template-hash"
"""By which a Deployment's controller tells pods of one template from those of another."""
_KILLED = 128 + 9
"""Exit code of a container that was ended by SIGKILL."""
LOST = "ContainerStatusUnknown"
"""Reason of a container that its kubelet can't find any more: the exit code, always that of SIGKILL, says nothing."""
_OWNER_LABELS = ("batch.kubernetes.io/job-name", "job-name")


@dataclass(frozen=True)
class JobState:
    """A Job, as far as a run goes."""

    finished: Literal["Complete", "Failed"] | None
    finished_at: str | None
    started_at: str | None
    suspended: bool
    """The spec asks for no pods: by us, by a person or by Kueue."""
    failed_pods: int


def read_job(job: Obj) -> JobState:
    """The state of a Job."""
    status = job.get("status", {})
    true = {entry["type"]: entry for entry in status.get("conditions", []) if entry.get("status") == "True"}
    kind: Literal["Complete", "Failed"] | None = (
        "Complete" if "Complete" in true else "Failed" if "Failed" in true else None
    )
    ended = true.get(kind or "", {}).get("lastTransitionTime")
    return JobState(
        finished=kind,
        finished_at=status.get("completionTime") or ended,
        started_at=status.get("startTime"),
        suspended=bool(job.get("spec", {}).get("suspend")),
        failed_pods=int(status.get("failed") or 0),
    )


def suspended_since(job: Obj) -> str:
    """Since when a suspended Job is so: as its controller tells, which at first has told nothing."""
    for entry in job.get("status", {}).get("conditions", []):
        if entry["type"] == "Suspended" and entry.get("status") == "True" and entry.get("lastTransitionTime"):
            return str(entry["lastTransitionTime"])
    return str(job["metadata"]["creationTimestamp"])


def say_suspended(job: Obj) -> str:
    """What a person reads of a Job whose suspension is not ours to lift."""
    return f"Job {job['metadata']['name']} is suspended: whoever did so, as Kueue does, lets it go on."


def pods_of(job_name: str, pods: Iterable[Obj]) -> list[Obj]:
    """A Job's pods, the oldest first."""
    own = [pod for pod in pods if job_of(pod) == job_name]
    return sorted(own, key=lambda pod: (pod["metadata"].get("creationTimestamp", ""), pod["metadata"]["name"]))


def living_pods(pods: Iterable[Obj]) -> list[Obj]:
    """Pods that still do something, those that are shutting down included."""
    return [pod for pod in pods if pod.get("status", {}).get("phase") not in {"Succeeded", "Failed"}]


def current_pod(pods: Sequence[Obj]) -> Obj | None:
    """The newest pod that is not going away."""
    staying = [pod for pod in pods if not pod["metadata"].get("deletionTimestamp")]
    return staying[-1] if staying else None


def current_pods(pods: Sequence[Obj]) -> list[Obj]:
    """The newest pod of each completion index that is not going away, the first index first."""
    staying = {index_of(pod): pod for pod in pods if not pod["metadata"].get("deletionTimestamp")}
    return [staying[index] for index in sorted(staying)]


def newest_pods(pods: Iterable[Obj]) -> list[Obj]:
    """A Deployment's pods of the template that came last: those before it are on their way out, and what ails them may
    have been mended since."""
    staying = [pod for pod in pods if not pod["metadata"].get("deletionTimestamp")]
    newest = max(staying, key=lambda pod: str(pod["metadata"].get("creationTimestamp", "")), default=None)
    return [pod for pod in staying if newest is not None and _template_of(pod) == _template_of(newest)]


def index_of(pod: Obj) -> int:
    """A pod's completion index; 0 for a pod of a Job without any."""
    return int(pod["metadata"].get("labels", {}).get(_INDEX_LABEL, 0))


def container_entry(pod: Obj, container: str) -> dict[str, Any]:
    """A container's entry in the pod's status, init containers included; empty before there is one."""
    status = pod.get("status", {})
    entries = [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]
    return next((entry for entry in entries if entry.get("name") == container), {})


def container_state(pod: Obj, container: str) -> dict[str, Any]:
    """A container's `state`: at most one of waiting, running, terminated."""
    state: dict[str, Any] = container_entry(pod, container).get("state", {})
    return state


def count_memory_deaths(pods: Iterable[Obj], container: str) -> int:
    """Pods whose container was killed for its memory: the node says so, or it was killed though nobody asked it to end.

    An eviction, a preemption and a deletion end with SIGKILL too when the grace period is over, and a kubelet that is
    short of disk or memory evicts with none at all; a node that is lost says nothing, and a kubelet that has lost a
    container doesn't know.
    """
    return sum(_died_of_memory(pod, container) for pod in pods)


def _template_of(pod: Obj) -> str:
    return str(pod["metadata"].get("labels", {}).get(_TEMPLATE_LABEL, ""))


def _died_of_memory(pod: Obj, container: str) -> bool:
    ended, status = container_state(pod, container).get("terminated", {}), pod.get("status", {})
    disrupted = any(
        entry["type"] == "DisruptionTarget" and entry["status"] == "True" for entry in status.get("conditions", [])
    )
    asked = pod["metadata"].get("deletionTimestamp") or disrupted or status.get("reason") == "Evicted"
    unknown = asked or ended.get("reason") == LOST
    return ended.get("reason") == "OOMKilled" or (ended.get("exitCode") == _KILLED and not unknown)


def has_started(pod: Obj, container: str) -> bool:
    """Whether a container has, or had, a log."""
    return bool({"running", "terminated"} & container_state(pod, container).keys())


def is_unscheduled(pod: Obj) -> bool:
    """Whether no node takes the pod for now."""
    conditions = pod.get("status", {}).get("conditions", [])
    return any(entry["type"] == "PodScheduled" and entry["status"] == "False" for entry in conditions)


def job_of(pod: Obj) -> str:
    """The name of the Job that made a pod; empty for another pod."""
    labels = pod.get("metadata", {}).get("labels", {})
    return next((labels[key] for key in _OWNER_LABELS if key in labels), "")
