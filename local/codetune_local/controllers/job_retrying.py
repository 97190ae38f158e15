"""How long a Job waits before it replaces a failed pod. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from codetune_local.controllers.job_counting import is_over
from codetune_local.controllers.job_policy import judge_failed_pod
from codetune_local.machinery.objects import Obj
from codetune_local.machinery.times import parse_time


@dataclass(frozen=True)
class RetryDelay:
    """10 s, 20 s, 40 s … and never more than six minutes, counted from the last failure."""

    base: float = 10.0
    cap: float = 360.0

    def after(self, failures: int) -> float:
        """Seconds after this many failures in a row."""
        return min(self.cap, self.base * 2.0 ** min(failures - 1, 30)) if failures else 0.0


def find_delay(job: Obj, pods: Sequence[Obj], now: datetime, retry: RetryDelay) -> float:
    """Seconds to wait before the next pod; 0 when the last pod succeeded or none has failed yet.

    Failures that the podFailurePolicy ignores are no failures here either.
    """
    ended = sorted((pod for pod in pods if is_over(pod)), key=lambda pod: finished_at(pod, now), reverse=True)
    failures = 0
    for pod in ended:
        if pod["status"]["phase"] == "Succeeded":
            break
        if judge_failed_pod(job, pod).action != "Ignore":
            failures += 1
    if not failures:
        return 0.0
    last = next(pod for pod in ended if judge_failed_pod(job, pod).action != "Ignore")
    due = finished_at(last, now) + timedelta(seconds=retry.after(failures))
    return max(0.0, (due - now).total_seconds())


def finished_at(pod: Obj, now: datetime) -> datetime:
    """When the last container ended; for a pod that never ran, when it was given up."""
    ends = [ended["finishedAt"] for ended in _terminated(pod) if ended.get("finishedAt")]
    if ends:
        return max(parse_time(end) for end in ends)
    conditions = (pod.get("status") or {}).get("conditions") or []
    times = [found["lastTransitionTime"] for found in conditions if found.get("lastTransitionTime")]
    return max((parse_time(moment) for moment in times), default=now)


def _terminated(pod: Obj) -> Iterable[Obj]:
    status = pod.get("status") or {}
    for entry in [*(status.get("containerStatuses") or []), *(status.get("initContainerStatuses") or [])]:
        if "terminated" in entry["state"]:
            yield entry["state"]["terminated"]


def restarts_of(pod: Obj) -> int:
    """Restarts of all containers of a pod."""
    status = pod.get("status") or {}
    entries = [*(status.get("containerStatuses") or []), *(status.get("initContainerStatuses") or [])]
    return sum(entry.get("restartCount", 0) for entry in entries)
