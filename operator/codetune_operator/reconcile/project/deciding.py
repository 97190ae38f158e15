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
from codetune_operator.reconcile.datasets import is_current, kept_revisions
from codetune_operator.reconcile.deletion import reconcile_deletion
from codetune_operator.reconcile.durations import format_time, parse_time, seconds_until
from codetune_operator.reconcile.failures import classify, explain_no_pod
from codetune_operator.reconcile.observed import ProjectView
from codetune_operator.reconcile.plan import ChildRef, Follow, Obj, Plan
from codetune_operator.reconcile.project.schedules import (
    INVALID_SCHEDULE,
    InvalidSchedule,
    Schedule,
    find_due,
    nap_seconds,
    read_schedule,
)
from codetune_operator.reconcile.project.sources import (
    SHORTEST_RETRY_SECONDS,
    TRANSIENT_REASONS,
    is_of_a_source,
    say_how_to_ask,
    seconds_to_retry,
    seconds_to_source_retry,
)
from codetune_operator.reconcile.project.status import (
    ScanDecision,
    build_scan_events,
    build_scan_status,
    say_dataset,
)
from codetune_operator.reconcile.unbound import explain_unbound
from codetune_operator.reconcile.workloads import (
    container_state,
    current_pod,
    has_started,
    is_unscheduled,
    living_pods,
    pods_of,
    read_job,
    say_suspended,
)
from codetune_operator.resources.claims import build_missing_claim
from codetune_operator.resources.models import FETCH_CONTAINER
from codetune_operator.resources.project.scan import (
    CONTAINER,
    build_scan,
    locate_quality_model,
    scan_digest,
    scan_job_name,
    scan_nonce,
)
from codetune_operator.settings import Settings

RESULT_SECONDS = 120
"""How long the log of a finished scan may take to appear before its result counts as lost. A log that is there is
read to its end first, however long ago that was: the operator may have been down."""
VOLUME_SECONDS = 45
"""How long a pod may wait for its volumes before a person is told what it waits for."""


def reconcile(view: ProjectView, settings: Settings, now: datetime) -> Plan:
    """What to do about a Project now."""
    project = view.project
    if project.metadata.deletion_timestamp:
        return reconcile_deletion(view, settings, now)
    try:
        schedule = read_schedule(project.spec)
        decision = _look_ahead(project, _decide(view, schedule, settings, now), schedule, now)
    except InvalidSchedule as error:
        decision = _refuse(project, error)
    status = build_scan_status(view, decision, settings.store.uri, now)
    claim = build_missing_claim(view.claim, project.metadata.namespace, settings)
    return Plan(
        status=status,
        apply=(*claim, *decision.apply),
        delete=decision.delete,
        follow=_follow(view),
        events=build_scan_events(project.status, status),
        finalizer="Keep" if FINALIZER in project.metadata.finalizers else "Add",
        requeue_after=decision.requeue_after,
    )


def _decide(view: ProjectView, schedule: Schedule | None, settings: Settings, now: datetime) -> ScanDecision:
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
    if status.config_digest == scan_digest(project):
        return _rest(view, job, schedule, now)
    if job is None:
        return _start(view, settings)
    if job["metadata"].get("deletionTimestamp"):
        return ScanDecision("Scanning", "ReplacingScan", "The former scan is being removed; a new one follows.")
    return replace(_watch(view, job, now), job_name=name)


def _refuse(project: Project, error: InvalidSchedule) -> ScanDecision:
    """A schedule that can't be carried out. The data that is there, and a scan that runs, are left as they are."""
    return ScanDecision(
        "Failed",
        INVALID_SCHEDULE,
        str(error),
        failure=error.failure,
        job_name=project.status.job_name,
        # Its failure takes the place of a scan's, so that scan does not count as made: its Job tells again how it
        # ended, or it is made anew.
        forget=_find_failure(project) is not None,
    )


def _find_failure(project: Project) -> Failure | None:
    """Why the last scan failed."""
    failure = project.status.failure
    return None if failure is None or failure.reason == INVALID_SCHEDULE else failure


def _look_ahead(project: Project, decision: ScanDecision, schedule: Schedule | None, now: datetime) -> ScanDecision:
    """The next time of the schedule; one that came while a scan is under way waits for its end."""
    if schedule is None or project.spec.suspend:
        return decision
    announced = parse_time(project.status.next_scan_at) if project.status.next_scan_at else None
    waits = decision.scheduled_at is None and announced is not None and announced <= now
    ahead = announced if waits else schedule.next_after(now)
    naps = [seconds for seconds in (decision.requeue_after, nap_seconds(ahead, now)) if seconds is not None]
    return replace(decision, next_scan_at=ahead, requeue_after=min(naps, default=None))


def _suspend(view: ProjectView) -> ScanDecision:
    """The data that is there stays usable; a scan that runs is stopped."""
    status, message = view.project.status, "Set spec.suspend to false to scan again."
    if status.revision is not None:
        message = f"{say_dataset(status)} {message}"
    # A scan that failed does not count as made: it is made anew when the Project goes on.
    forget = _find_failure(view.project) is not None
    return ScanDecision("Suspended", "Suspended", message, delete=_remove(view.jobs), forget=forget)


def _rest(view: ProjectView, job: Obj | None, schedule: Schedule | None, now: datetime) -> ScanDecision:
    """The scan is made: is it time for another?"""
    status = view.project.status
    announced = parse_time(status.next_scan_at) if status.next_scan_at else None
    due = find_due(schedule, announced, now) if schedule is not None else None
    if due is not None:
        message = f"The time {format_time(due)} of spec.schedule has come."
        return ScanDecision("Scanning", "ScanDue", message, scheduled_at=due)
    if (failure := _find_failure(view.project)) is not None:
        return _rest_failed(view, failure, job, now)
    left = seconds_to_source_retry(status, now)
    if left is not None and left <= 0:
        return ScanDecision("Scanning", "Retrying", "Sources that could not be read are tried again.", again=True)
    return ScanDecision("Ready", "Scanned", "", delete=_remove([job] if job else []), requeue_after=left)


def _rest_failed(view: ProjectView, failure: Failure, job: Obj | None, now: datetime) -> ScanDecision:
    """A scan that failed: its Job stays to be looked at until the next attempt."""
    name = scan_job_name(view.project)
    message = _say_failure(view.project, failure)
    kept = ScanDecision("Failed", failure.reason, message, failure=failure, job_name=name)
    if failure.reason not in TRANSIENT_REASONS:
        return kept
    left = _seconds_to_retry(view.project, job, now)
    if left > 0:
        return replace(kept, retrying=True, requeue_after=left)
    message = f"The last scan failed ({failure.reason}); it is tried again."
    return ScanDecision("Scanning", "Retrying", message, again=True)


def _say_failure(project: Project, failure: Failure) -> str:
    """Why there is no new dataset, and what becomes of it or what a person is to do."""
    if failure.reason in TRANSIENT_REASONS:
        return f"{failure.message} It is tried again by itself."
    ask = say_how_to_ask(project.metadata.name) if is_of_a_source(failure) else ""
    return " ".join(filter(None, (failure.message, failure.hint, ask)))


def _seconds_to_retry(project: Project, job: Obj | None, now: datetime) -> float:
    """Seconds until a failed scan is tried again; at once when its Job is gone."""
    condition = conditions.find(project.status.conditions, "Ready")
    ended = read_job(job).finished_at if job else None
    if condition is None or ended is None:
        return 0.0
    return seconds_to_retry(condition.last_transition_time, ended, now)


def _start(view: ProjectView, settings: Settings) -> ScanDecision:
    project, status = view.project, view.project.status
    if status.revision is None:
        why = ""
    elif not is_current(project):
        why = " by the rules that spec has now"
    else:
        why = " again"
    if refused := _refuse_uploads(project, settings):
        return ScanDecision("Failed", refused.reason, f"{refused.message} {refused.hint}", failure=refused)
    model = locate_quality_model(project, settings)
    if isinstance(model, Failure):
        return ScanDecision("Failed", model.reason, f"files.quality: {model.message} {model.hint}", failure=model)
    return ScanDecision(
        "Scanning",
        "ScanStarted",
        f"The sources are being scanned{why}.",
        job_name=scan_job_name(project),
        apply=build_scan(project, settings, kept_revisions(project, view.uses), model),
    )


def _refuse_uploads(project: Project, settings: Settings) -> Failure | None:
    """What is sent to a Project lies in a claim; there is none where the store is a bucket."""
    uploads = [source.name for source in project.spec.sources if source.upload is not None]
    if settings.store.bucket is None or not uploads:
        return None
    return Failure(
        reason="UnsupportedSource",
        message=f"Source {uploads[0]!r} is an upload, and this operator's store is a bucket, which takes none.",
        hint="Give sources[].git, archive or volume instead of upload, or have store.bucket unset in the operator's "
        "settings.",
    )


def _watch(view: ProjectView, job: Obj, now: datetime) -> ScanDecision:
    """What a scan Job that exists means."""
    state = read_job(job)
    result = view.report.result.scan if view.report.result is not None else None
    if state.finished == "Complete" and result is not None:
        return ScanDecision("Ready", "Scanned", "", result=result)
    if state.finished == "Complete":
        left = seconds_until(state.finished_at, RESULT_SECONDS, now) if state.finished_at else RESULT_SECONDS
        unread = any((follow.pod, follow.container) not in view.read_logs for follow in _follow(view))
        if left > 0 or unread:
            message = "The scan is done; its result is being read from the log."
            return ScanDecision("Scanning", "ReadingResult", message, requeue_after=left if left > 0 else None)
        return _fail(
            view.project,
            Failure(
                reason="InternalError",
                message="The scan is complete, but its log was gone before its result could be read.",
                hint="Nothing is to be done: the scan is started again by itself.",
            ),
        )
    pods = pods_of(job["metadata"]["name"], view.pods)
    if state.finished == "Failed":
        failure = classify(pods[-1:], owner=job, nodes=view.nodes) or Failure(
            reason="InternalError",
            message="The scan Job failed, and neither it nor its pod says why.",
            hint=f"See `kubectl describe job {job['metadata']['name']}`.",
        )
        return _fail(view.project, failure)
    pod = current_pod(pods)
    return _watch_pod(view, pod, now) if pod is not None else _await_pod(view, job, pods, now)


def _await_pod(view: ProjectView, job: Obj, pods: list[Obj], now: datetime) -> ScanDecision:
    if read_job(job).suspended:
        return ScanDecision("Scanning", "JobSuspended", say_suspended(job))
    waiting = ScanDecision("Scanning", "NoPod", "The scan Job has no pod yet.")
    if living_pods(pods) or view.report.stage:
        return waiting
    failure, left = explain_no_pod(job, now)
    if failure is None:
        return replace(waiting, requeue_after=left)
    return replace(waiting, message=failure.message, failure=failure)


def _fail(project: Project, failure: Failure) -> ScanDecision:
    return ScanDecision(
        "Failed",
        failure.reason,
        _say_failure(project, failure),
        failure=failure,
        finished=True,
        retrying=failure.reason in TRANSIENT_REASONS,
        requeue_after=SHORTEST_RETRY_SECONDS if failure.reason in TRANSIENT_REASONS else None,
    )


def _watch_pod(view: ProjectView, pod: Obj, now: datetime) -> ScanDecision:
    unbound, left = explain_unbound(view.claim, [pod], now)
    failure = unbound or classify([pod], nodes=view.nodes)
    if failure is not None and not has_started(pod, CONTAINER):
        return ScanDecision("Scanning", failure.reason, failure.message, failure=failure, requeue_after=left)
    if failure is not None:
        message = f"The last attempt ended: {failure.reason}: {failure.message} It is tried again."
        return ScanDecision("Scanning", "Restarting", message)
    if has_started(pod, FETCH_CONTAINER) and not has_started(pod, CONTAINER):
        return ScanDecision("Scanning", "FetchingModel", "The base model of files.quality is being fetched.")
    if left is not None:
        message = f"Pod {pod['metadata']['name']} waits for the artifact store's claim."
        return ScanDecision("Scanning", "PodStarting", message, requeue_after=left)
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
