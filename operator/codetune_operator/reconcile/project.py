"""Project: from what was observed to what to do now. Pure: no client, no clock, no environment.

Read `_decide` top to bottom: it is the life of a scan. A scan is named by what it is made from, so the same scan is
never started twice; its result is in status before its Job is removed, so a restart in between loses nothing.
"""

from dataclasses import replace
from datetime import datetime

from codetune_api.common import Failure
from codetune_api.metadata import FINALIZER
from codetune_api.project import Project

from codetune_operator.reconcile import conditions
from codetune_operator.reconcile.deletion import reconcile_deletion
from codetune_operator.reconcile.durations import parse_time, seconds_until
from codetune_operator.reconcile.failures import classify
from codetune_operator.reconcile.observed import ProjectView
from codetune_operator.reconcile.plan import ChildRef, Follow, Obj, Plan
from codetune_operator.reconcile.scanstatus import ScanDecision, build_scan_events, build_scan_status, say_dataset
from codetune_operator.reconcile.workloads import (
    container_state,
    current_pod,
    has_started,
    is_unscheduled,
    pods_of,
    read_job,
)
from codetune_operator.resources.claims import build_claim
from codetune_operator.resources.scan import CONTAINER, build_scan, scan_digest, scan_job_name, scan_nonce
from codetune_operator.settings import Settings

RESULT_SECONDS = 120
"""How long the log of a finished scan may take to be read before its result counts as lost."""
VOLUME_SECONDS = 45
"""How long a pod may wait for its volumes before a person is told what it waits for."""
SHORTEST_RETRY_SECONDS = 60.0
LONGEST_RETRY_SECONDS = 3600.0
TRANSIENT_REASONS = frozenset(
    {"SourceUnavailable", "Evicted", "InternalError", "CrashLoop", "StartError", "DiskFull", "DeadlineExceeded"}
)
"""Failures that may be over at the next attempt, without an edit of the Project."""


def reconcile(view: ProjectView, settings: Settings, now: datetime) -> Plan:
    """What to do about a Project now."""
    project = view.project
    if project.metadata.deletion_timestamp:
        return reconcile_deletion(view, settings, now)
    decision = _decide(view, settings, now)
    status = build_scan_status(view, decision, now)
    claim = () if view.claim is not None else (build_claim(project.metadata.namespace, settings),)
    return Plan(
        status=status,
        apply=(*claim, *decision.apply),
        delete=decision.delete,
        follow=_follow(view),
        events=build_scan_events(project.status, status),
        finalizer="Keep" if FINALIZER in project.metadata.finalizers else "Add",
        requeue_after=decision.requeue_after,
    )


def _decide(view: ProjectView, settings: Settings, now: datetime) -> ScanDecision:
    project = view.project
    if project.spec.suspend:
        return _suspend(view)
    name, status = scan_job_name(project), project.status
    scans = [job for job in view.jobs if job["metadata"]["name"].startswith(f"{project.metadata.name}-scan-")]
    others = [job for job in scans if job["metadata"]["name"] != name]
    if others:
        message = "A former scan is being stopped; then the new one starts."
        return ScanDecision("Scanning", "ReplacingScan", message, delete=_remove(others))
    job = next(iter(scans), None)
    if status.config_digest == scan_digest(project) and status.phase != "Failed":
        return ScanDecision("Ready", "Scanned", "", delete=_remove([job] if job else []))
    if status.config_digest == scan_digest(project) and status.failure is not None:
        return _rest_failed(view, status.failure, job, now)
    if job is None:
        return ScanDecision(
            "Scanning", "ScanStarted", "The sources are being scanned.", apply=build_scan(project, settings)
        )
    if job["metadata"].get("deletionTimestamp"):
        return ScanDecision("Scanning", "ReplacingScan", "The former scan is being removed; a new one follows.")
    return _watch(view, job, now)


def _suspend(view: ProjectView) -> ScanDecision:
    """The data that is there stays usable; a scan that runs is stopped."""
    status, message = view.project.status, "Set spec.suspend to false to scan again."
    if status.revision is not None:
        message = f"{say_dataset(status)} {message}"
    # A scan that failed does not count as made: it is made anew when the Project goes on.
    return ScanDecision("Suspended", "Suspended", message, delete=_remove(view.jobs), forget=status.phase == "Failed")


def _rest_failed(view: ProjectView, failure: Failure, job: Obj | None, now: datetime) -> ScanDecision:
    """A scan that failed: its Job stays to be looked at until the next attempt."""
    kept = ScanDecision("Failed", failure.reason, failure.message, failure=failure)
    if failure.reason not in TRANSIENT_REASONS:
        return kept
    left = seconds_to_retry(view.project, job, now)
    if left > 0:
        message = f"{failure.message} It is tried again by itself."
        return replace(kept, message=message, retrying=True, requeue_after=left)
    message = f"The last scan failed ({failure.reason}); it is tried again."
    delete = _remove([job] if job else [])
    return ScanDecision("Scanning", "Retrying", message, failure=failure, delete=delete, forget=True)


def seconds_to_retry(project: Project, job: Obj | None, now: datetime) -> float:
    """Seconds until a failed scan is tried again: as long as the trouble lasts already, at least 1 min, at most 1 h.

    So the pause doubles with each attempt, and nothing has to be counted.
    """
    condition = conditions.find(project.status.conditions, "Ready")
    ended = read_job(job).finished_at if job else None
    if condition is None or ended is None:
        return 0.0
    lasting = (parse_time(ended) - parse_time(condition.last_transition_time)).total_seconds()
    return seconds_until(ended, min(max(lasting, SHORTEST_RETRY_SECONDS), LONGEST_RETRY_SECONDS), now)


def _watch(view: ProjectView, job: Obj, now: datetime) -> ScanDecision:
    """What a scan Job that exists means."""
    state = read_job(job)
    result = view.report.result.scan if view.report.result is not None else None
    if state.finished == "Complete" and result is not None:
        return ScanDecision("Ready", "Scanned", "", result=result)
    if state.finished == "Complete":
        left = seconds_until(state.finished_at, RESULT_SECONDS, now) if state.finished_at else RESULT_SECONDS
        if left > 0:
            message = "The scan is done; its result is being read from the log."
            return ScanDecision("Scanning", "ReadingResult", message, requeue_after=left)
        return _fail(
            Failure(
                reason="InternalError",
                message="The scan is complete, but its log was gone before its result could be read.",
                hint="Nothing is to be done: the scan is started again by itself.",
            )
        )
    pods = pods_of(job["metadata"]["name"], view.pods)
    if state.finished == "Failed":
        failure = classify(pods[-1:], owner=job, nodes=view.nodes) or Failure(
            reason="InternalError",
            message="The scan Job failed, and neither it nor its pod says why.",
            hint=f"See `kubectl describe job {job['metadata']['name']}`.",
        )
        return _fail(failure)
    return _watch_pod(view, current_pod(pods), now)


def _fail(failure: Failure) -> ScanDecision:
    return ScanDecision(
        "Failed",
        failure.reason,
        failure.message,
        failure=failure,
        finished=True,
        retrying=failure.reason in TRANSIENT_REASONS,
        requeue_after=SHORTEST_RETRY_SECONDS if failure.reason in TRANSIENT_REASONS else None,
    )


def _watch_pod(view: ProjectView, pod: Obj | None, now: datetime) -> ScanDecision:
    if pod is None:
        return ScanDecision("Scanning", "NoPod", "The scan Job has no pod yet.")
    failure = classify([pod], nodes=view.nodes)
    if failure is not None and not has_started(pod, CONTAINER):
        return ScanDecision("Scanning", failure.reason, failure.message, failure=failure)
    if failure is not None:
        message = f"The last attempt ended: {failure.reason}: {failure.message} It is tried again."
        return ScanDecision("Scanning", "Restarting", message)
    if not has_started(pod, CONTAINER) and not is_unscheduled(pod):
        return _await_volumes(view.project, pod, now)
    stage = view.report.stage
    message = f"The sources are being scanned: {stage}." if stage else "The sources are being scanned."
    return ScanDecision("Scanning", "Scanning", message)


def _await_volumes(project: Project, pod: Obj, now: datetime) -> ScanDecision:
    """A pod that lacks a volume says nothing about it, so after a while we say what it may lack."""
    name = pod["metadata"]["name"]
    starting = ScanDecision("Scanning", "PodStarting", f"Pod {name} is starting.")
    since = pod.get("status", {}).get("startTime") or pod["metadata"].get("creationTimestamp")
    needs = [
        f"Secret {source.credentials_secret_ref.name!r} of source {source.name!r}"
        for source in project.spec.sources
        if source.credentials_secret_ref is not None
    ]
    if not since or not needs:
        return starting
    left = seconds_until(since, VOLUME_SECONDS, now)
    if left > 0:
        return replace(starting, requeue_after=left)
    failure = Failure(
        reason="StartError",
        message=f"Pod {name} has waited for its volumes for {VOLUME_SECONDS} s. It needs {', '.join(needs)}.",
        hint=f"Create what is missing, or correct credentialsSecretRef; `kubectl describe pod {name}` names it.",
    )
    return ScanDecision("Scanning", failure.reason, failure.message, failure=failure)


def _remove(jobs: tuple[Obj, ...] | list[Obj]) -> tuple[ChildRef, ...]:
    """Jobs; their configuration is theirs by name and goes first."""
    return tuple(
        ref
        for job in jobs
        if not job["metadata"].get("deletionTimestamp")
        for ref in (
            ChildRef("v1", "ConfigMap", job["metadata"]["name"]),
            ChildRef("batch/v1", "Job", job["metadata"]["name"], job["metadata"].get("uid")),
        )
    )


def _follow(view: ProjectView) -> tuple[Follow, ...]:
    """Logs of the current scan's attempts, until the result is in status."""
    project = view.project
    if project.spec.suspend or project.status.config_digest == scan_digest(project):
        return ()
    return tuple(
        Follow(
            pod=pod["metadata"]["name"],
            container=CONTAINER,
            nonce=scan_nonce(project),
            finished="terminated" in container_state(pod, CONTAINER),
        )
        for pod in pods_of(scan_job_name(project), view.pods)
        if has_started(pod, CONTAINER)
    )
