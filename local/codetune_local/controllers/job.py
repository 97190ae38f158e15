"""The Job controller's decisions. Pure: a Job, its pods and the time in, a plan out.

What it follows: https://kubernetes.io/docs/concepts/workloads/controllers/job/
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from codetune_local.controllers.job_counting import (
    Count,
    count_pods,
    is_active,
    is_over,
    waits_for_the_end,
)
from codetune_local.controllers.job_indexes import index_of
from codetune_local.controllers.job_pods import TRACKING_FINALIZER, build_job_pod
from codetune_local.controllers.job_retrying import RetryDelay, find_delay, restarts_of
from codetune_local.controllers.naming import random_suffix
from codetune_local.machinery.actions import (
    Action,
    Announce,
    Announcement,
    Create,
    Delete,
    Plan,
    RemoveFinalizer,
    WriteStatus,
)
from codetune_local.machinery.objects import (
    Obj,
    finalizers_of,
    get_condition,
    is_being_deleted,
    is_condition_true,
    name_of,
    namespace_of,
    set_condition,
    uid_of,
)
from codetune_local.machinery.times import format_time, parse_time

JOBS = "jobs.batch"
PODS = "pods"


def reconcile_job(
    job: Obj, pods: Sequence[Obj], now: datetime, retry: RetryDelay, suffix: Callable[[], str] = random_suffix
) -> Plan:
    """What to do for a Job now.

    Args:
        job: The Job.
        pods: All pods that it controls.
        retry: How long to wait before a failed pod is replaced.
        suffix: Makes the unique end of a pod's name.
    """
    if is_being_deleted(job):
        return Plan(tuple(_release(pods)))
    if is_condition_true(job, "Complete") or is_condition_true(job, "Failed"):
        return _after_the_end(job, pods, now)
    return _Round(job, pods, now, retry, suffix).plan()


def _release(pods: Sequence[Obj]) -> list[Action]:
    held = [pod for pod in pods if TRACKING_FINALIZER in finalizers_of(pod)]
    return [RemoveFinalizer(PODS, namespace_of(pod), name_of(pod), uid_of(pod), TRACKING_FINALIZER) for pod in held]


def _after_the_end(job: Obj, pods: Sequence[Obj], now: datetime) -> Plan:
    """Let the pods go, and the Job itself when its time to live is over."""
    actions = _release(pods)
    seconds = job["spec"].get("ttlSecondsAfterFinished")
    if seconds is None:
        return Plan(tuple(actions))
    ended = get_condition(job, "Complete") or get_condition(job, "Failed") or {}
    left = (parse_time(ended["lastTransitionTime"]) + timedelta(seconds=seconds) - now).total_seconds()
    if left > 0:
        return Plan(tuple(actions), look_again=left)
    delete = Delete(JOBS, namespace_of(job), name_of(job), uid_of(job), propagation="Foreground")
    return Plan((*actions, delete))


@dataclass
class _Round:
    """One look at a Job that is not over."""

    job: Obj
    pods: Sequence[Obj]
    now: datetime
    retry: RetryDelay
    suffix: Callable[[], str]
    look_again: float | None = None
    events: list[Action] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.spec = self.job["spec"]
        self.is_indexed = self.spec.get("completionMode") == "Indexed"
        self.active = [pod for pod in self.pods if is_active(pod)]
        self.terminating = [pod for pod in self.pods if is_being_deleted(pod) and not is_over(pod)]
        self.status: Obj = copy.deepcopy(self.job.get("status") or {})
        self.conditions: list[Obj] = self.status.get("conditions") or []

    def plan(self) -> Plan:
        """Count, decide whether it is over, and otherwise bring the number of pods to what is wanted."""
        failing = is_condition_true(self.job, "FailureTarget")
        succeeding = is_condition_true(self.job, "SuccessCriteriaMet")
        count = count_pods(self.job, self.pods, job_is_over=failing)
        if not failing and not succeeding:
            failing = self._find_failure(count)
            succeeding = not failing and self._find_success(count)
        suspended = bool(self.spec.get("suspend"))
        if failing:
            work = [self._delete(pod) for pod in self.active]
        elif succeeding or suspended:
            work = self._withdraw(self.active)
        else:
            work = self._manage(count)
        if not (failing or succeeding):
            self._note_suspension(suspended)
        self._write_counts(count, work)
        self._conclude(count, failing=failing, succeeding=succeeding)
        write = WriteStatus(JOBS, namespace_of(self.job), name_of(self.job), uid_of(self.job), self.status)
        changed = [write] if self.status != self.job.get("status") else []
        return Plan((*changed, *_release(count.release), *work, *self.events), look_again=self.look_again)

    def _find_failure(self, count: Count) -> bool:
        """Set FailureTarget when the Job cannot succeed any more."""
        limit = self.spec.get("backoffLimit", 6)
        started = self.status.get("startTime")
        deadline = self.spec.get("activeDeadlineSeconds")
        if count.fail_job:
            reason, message = "PodFailurePolicy", count.fail_job
        elif count.total_failed > limit or self._restarted_too_often(limit):
            reason, message = "BackoffLimitExceeded", "Job has reached the specified backoff limit"
        elif started and deadline is not None and not self.spec.get("suspend"):
            left = (parse_time(started) + timedelta(seconds=deadline) - self.now).total_seconds()
            if left > 0:
                self.look_again = left
                return False
            reason, message = "DeadlineExceeded", "Job was active longer than specified deadline"
        else:
            return False
        self._set("FailureTarget", "True", reason, message)
        return True

    def _restarted_too_often(self, limit: int) -> bool:
        if self.spec["template"]["spec"].get("restartPolicy") != "OnFailure":
            return False
        restarts = sum(restarts_of(pod) for pod in self.active)
        return restarts > 0 if limit == 0 else restarts >= limit

    def _find_success(self, count: Count) -> bool:
        """Set SuccessCriteriaMet when enough pods have succeeded."""
        completions = self.spec.get("completions")
        if completions is None:  # a work queue: over when one has succeeded and none is left
            met = count.total_succeeded > 0 and not self.active and not self.terminating
        else:
            met = count.total_succeeded >= completions
        if met:
            self._set("SuccessCriteriaMet", "True", "CompletionsReached", "Reached expected number of succeeded pods")
        return met

    def _manage(self, count: Count) -> list[Action]:
        """Create what is missing, remove what is too much."""
        self.status.setdefault("startTime", format_time(self.now))
        deadline = self.spec.get("activeDeadlineSeconds")
        if deadline is not None and self.look_again is None:
            self.look_again = float(deadline)
        wanted = self._wanted(count)
        if len(self.active) > wanted:
            surplus = sorted(self.active, key=_least_worth_first)[: len(self.active) - wanted]
            return self._withdraw(surplus)
        occupied = [*self.active, *self.terminating] if waits_for_the_end(self.job) else self.active
        missing = wanted - len(occupied)
        if missing <= 0:
            return []
        delay = find_delay(self.job, self.pods, self.now, self.retry)
        if delay > 0:
            self.look_again = min(delay, self.look_again or delay)
            return []
        return [self._create(index) for index in self._free_indexes(count, occupied, missing)]

    def _wanted(self, count: Count) -> int:
        parallelism = int(self.spec.get("parallelism", 1))
        completions = self.spec.get("completions")
        if completions is None:
            return min(parallelism, len(self.active)) if count.total_succeeded else parallelism
        return max(0, min(parallelism, int(completions) - count.total_succeeded))

    def _free_indexes(self, count: Count, occupied: Sequence[Obj], missing: int) -> list[int | None]:
        if not self.is_indexed:
            return [None] * missing
        taken = {index_of(pod) for pod in occupied} | count.completed_indexes
        free = (index for index in range(self.spec["completions"]) if index not in taken)
        return [index for index, _ in zip(free, range(missing), strict=False)]

    def _create(self, index: int | None) -> Action:
        announce = Announcement(self.job, "SuccessfulCreate", "Created pod: {name}")
        return Create(PODS, build_job_pod(self.job, index, self.suffix()), announce)

    def _delete(self, pod: Obj) -> Action:
        announce = Announcement(self.job, "SuccessfulDelete", "Deleted pod: {name}")
        return Delete(PODS, namespace_of(pod), name_of(pod), uid_of(pod), announce=announce)

    def _withdraw(self, pods: Sequence[Obj]) -> list[Action]:
        """Delete pods that did nothing wrong: without their finalizer first, so that they count as nothing."""
        return [action for pod in pods for action in (*_release([pod]), self._delete(pod))]

    def _note_suspension(self, suspended: bool) -> None:
        before = get_condition(self.job, "Suspended")
        was_suspended = before is not None and before["status"] == "True"
        if suspended and not was_suspended:
            self._set("Suspended", "True", "JobSuspended", "Job suspended")
            self.status.pop("startTime", None)
            self._announce("Suspended", "Job suspended")
        elif not suspended and was_suspended:
            self._set("Suspended", "False", "JobResumed", "Job resumed")
            self.status["startTime"] = format_time(self.now)
            self._announce("Resumed", "Job resumed")

    def _write_counts(self, count: Count, work: Sequence[Action]) -> None:
        count.write_into(self.status, is_indexed=self.is_indexed)
        created = sum(isinstance(action, Create) for action in work)
        deleted = {action.uid for action in work if isinstance(action, Delete)}
        stay = [pod for pod in self.active if uid_of(pod) not in deleted]
        numbers = {
            "active": len(stay) + created,
            "ready": sum(is_condition_true(pod, "Ready") for pod in stay),
            "terminating": len(self.terminating) + len(deleted),
        }
        for key, number in numbers.items():
            self.status[key] = number
        if not numbers["active"]:
            del self.status["active"]

    def _conclude(self, count: Count, *, failing: bool, succeeding: bool) -> None:
        """The final condition, once nothing runs and everything is counted."""
        pending = [pod for pod in self.pods if not is_over(pod)]
        if self.conditions:
            self.status["conditions"] = self.conditions
        if not (failing or succeeding) or pending or count.release or self.status.get("uncountedTerminatedPods"):
            return
        target = "FailureTarget" if failing else "SuccessCriteriaMet"
        why = next(found for found in self.conditions if found["type"] == target)
        self._set("Failed" if failing else "Complete", "True", why["reason"], why["message"])
        self.status["conditions"] = self.conditions
        if failing:
            self._announce(why["reason"], why["message"], "Warning")
        else:
            self.status["completionTime"] = format_time(self.now)
            self._announce("Completed", "Job completed")

    def _set(self, kind: str, status: str, reason: str, message: str) -> None:
        probed = format_time(self.now)
        self.conditions = set_condition(
            self.conditions, kind, status, now=self.now, reason=reason, message=message, lastProbeTime=probed
        )

    def _announce(self, reason: str, message: str, kind: str = "Normal") -> None:
        event = Announcement(self.job, reason, message, "Warning" if kind == "Warning" else "Normal")
        self.events.append(Announce(event))


def _least_worth_first(pod: Obj) -> tuple[bool, bool, str]:
    """Not scheduled before scheduled, not ready before ready, then the youngest."""
    created = pod["metadata"].get("creationTimestamp", "")
    youth = "".join(chr(0x10FFFF - ord(letter)) for letter in created)
    return bool(pod["spec"].get("nodeName")), is_condition_true(pod, "Ready"), youth
