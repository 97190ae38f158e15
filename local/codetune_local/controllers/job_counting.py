"""Counting a Job's finished pods so that none is counted twice or forgotten, whatever dies in between. Pure.

A finished pod is kept by a finalizer until it is counted. Counting takes three steps, each safe to repeat: its
uid is written into status.uncountedTerminatedPods; its finalizer is taken off; and once that is seen to be gone, the
uid moves from the list into the counter, in one write.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from codetune_local.controllers.job_indexes import format_indexes, index_of, parse_indexes
from codetune_local.controllers.job_pods import TRACKING_FINALIZER
from codetune_local.controllers.job_policy import judge_failed_pod
from codetune_local.machinery.objects import Obj, finalizers_of, is_being_deleted, uid_of

FINAL_PHASES = ("Succeeded", "Failed")


@dataclass(frozen=True)
class Count:
    """Where the counting stands."""

    succeeded: int
    """Counted, not including the uncounted."""
    failed: int
    uncounted_succeeded: tuple[str, ...]
    uncounted_failed: tuple[str, ...]
    completed_indexes: frozenset[int]
    release: tuple[Obj, ...]
    """Pods whose finalizer may go, after status was written."""
    fail_job: str = ""
    """The message of a FailJob rule that matched."""

    @property
    def total_succeeded(self) -> int:
        """With those about to be counted."""
        return self.succeeded + len(self.uncounted_succeeded)

    @property
    def total_failed(self) -> int:
        """With those about to be counted."""
        return self.failed + len(self.uncounted_failed)

    def write_into(self, status: Obj, *, is_indexed: bool) -> None:
        """Set the counters of status."""
        lists = {"succeeded": list(self.uncounted_succeeded), "failed": list(self.uncounted_failed)}
        status["uncountedTerminatedPods"] = {key: uids for key, uids in lists.items() if uids}
        for key, number in (("succeeded", self.succeeded), ("failed", self.failed)):
            status.pop(key, None)
            if number:
                status[key] = number
        if is_indexed and self.completed_indexes:
            status["completedIndexes"] = format_indexes(self.completed_indexes)


def is_active(pod: Obj) -> bool:
    """Neither over nor asked to go."""
    return not is_over(pod) and not is_being_deleted(pod)


def is_over(pod: Obj) -> bool:
    """Whether the pod reached its final phase."""
    return (pod.get("status") or {}).get("phase") in FINAL_PHASES


def counts_as_failed(job: Obj, pod: Obj) -> bool:
    """Failed, or on its way out where the Job does not wait for the end (podReplacementPolicy TerminatingOrFailed)."""
    phase = (pod.get("status") or {}).get("phase")
    if phase == "Failed" or waits_for_the_end(job):
        return phase == "Failed"
    return is_being_deleted(pod) and phase != "Succeeded"


def waits_for_the_end(job: Obj) -> bool:
    """Whether a pod is replaced only once it has ended; the default with a podFailurePolicy."""
    default = "Failed" if job["spec"].get("podFailurePolicy") else "TerminatingOrFailed"
    return bool(job["spec"].get("podReplacementPolicy", default) == "Failed")


def count_pods(job: Obj, pods: Sequence[Obj], *, job_is_over: bool) -> Count:
    """Take one step for every pod that ended.

    Args:
        pods: All that the Job controls.
        job_is_over: It is failing or being deleted: what is still going down counts as failed.
    """
    status = job.get("status") or {}
    uncounted = status.get("uncountedTerminatedPods") or {}
    held = {uid_of(pod): pod for pod in pods if TRACKING_FINALIZER in finalizers_of(pod)}
    done = {key: [uid for uid in uncounted.get(key) or [] if uid not in held] for key in ("succeeded", "failed")}
    left = {key: [uid for uid in uncounted.get(key) or [] if uid in held] for key in ("succeeded", "failed")}
    indexed = job["spec"].get("completionMode") == "Indexed"
    completed, release, fail_job = parse_indexes(status.get("completedIndexes")), [], ""
    known = {*left["succeeded"], *left["failed"]}
    for uid, pod in held.items():
        if uid in known:
            release.append(pod)
        elif (pod.get("status") or {}).get("phase") == "Succeeded":
            release.append(pod)
            index = index_of(pod)
            if not indexed:
                left["succeeded"].append(uid)
            elif index is not None and index < job["spec"]["completions"]:
                completed.add(index)
        elif counts_as_failed(job, pod) or (job_is_over and is_being_deleted(pod)):
            release.append(pod)
            verdict = judge_failed_pod(job, pod) if is_over(pod) else None
            if verdict is not None and verdict.action == "FailJob":
                fail_job = fail_job or verdict.message
            if verdict is None or verdict.action != "Ignore":
                left["failed"].append(uid)
    succeeded = len(completed) if indexed else status.get("succeeded", 0) + len(done["succeeded"])
    return Count(
        succeeded=succeeded,
        failed=status.get("failed", 0) + len(done["failed"]),
        uncounted_succeeded=tuple(left["succeeded"]),
        uncounted_failed=tuple(left["failed"]),
        completed_indexes=frozenset(completed),
        release=tuple(release),
        fail_job=fail_job,
    )
