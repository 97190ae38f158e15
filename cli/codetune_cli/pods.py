"""The pods of a run: which of them is meant, and which of its containers has something to say. Pure."""

from collections.abc import Sequence
from typing import Any

from codetune_cli.errors import CliError

Obj = dict[str, Any]

_INDEX = "batch.kubernetes.io/job-completion-index"
_OVER = frozenset({"Succeeded", "Failed"})


def choose_pod(pods: Sequence[Obj], wanted: str | None) -> Obj:
    """The pod that is meant, of at least one: by its name, or the newest one of a node; the first node's by default.

    Raises:
        CliError: There is no such pod; names those that there are.
    """
    newest = newest_pods(pods)
    if wanted is None:
        return newest[min(newest)]
    named = next((pod for pod in pods if pod["metadata"]["name"] == wanted), None)
    if named is not None:
        return named
    if wanted.isdecimal() and int(wanted) in newest:
        return newest[int(wanted)]
    there = ", ".join(f"{pod['metadata']['name']} ({index_of(pod)})" for pod in pods)
    raise CliError(f"There is no pod {wanted!r} of this run; give a name or an index of: {there}.")


def newest_pods(pods: Sequence[Obj]) -> dict[int, Obj]:
    """Of each node's attempts the last one."""
    return {index_of(pod): pod for pod in sorted(pods, key=_age)}


def index_of(pod: Obj) -> int:
    """Which of the run's nodes a pod is, from 0."""
    return int((pod["metadata"].get("annotations") or {}).get(_INDEX) or 0)


def is_over(pod: Obj) -> bool:
    """Whether nothing more will come from a pod."""
    return (pod.get("status") or {}).get("phase") in _OVER


def find_container(pod: Obj) -> str | None:
    """The container that has begun last: the one that does the work, else one before it; None where none has."""
    status = pod.get("status") or {}
    begun = {
        found["name"]
        for key in ("initContainerStatuses", "containerStatuses")
        for found in status.get(key) or []
        if any((found.get("state") or {}).get(state) for state in ("running", "terminated"))
    }
    order = [*(pod["spec"].get("initContainers") or []), *pod["spec"]["containers"]]
    return next((container["name"] for container in reversed(order) if container["name"] in begun), None)


def _age(pod: Obj) -> tuple[str, str]:
    return pod["metadata"].get("creationTimestamp") or "", pod["metadata"]["name"]
