"""The status of a Project: what was decided about its scan and what the scan found. Pure."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from codetune_api.artifacts import store_uri
from codetune_api.common import Failure
from codetune_api.contracts import ScanResult
from codetune_api.project import Project, ProjectPhase, ProjectStatus

from codetune_operator.reconcile import conditions
from codetune_operator.reconcile.datasets import is_current
from codetune_operator.reconcile.durations import format_time
from codetune_operator.reconcile.observed import ProjectView
from codetune_operator.reconcile.plan import ChildRef, EventSpec, Obj
from codetune_operator.reconcile.project.bounding import bound_result, say_types, say_unmatched
from codetune_operator.reconcile.project.sources import CONDITION, blame, build_source_events, describe_sources
from codetune_operator.resources.project.scan import fetch_digest, rules_digest, scan_digest

_SHORT_DIGITS = 12


@dataclass(frozen=True)
class ScanDecision:
    """What was found out about a scan and what is to be done about it."""

    phase: ProjectPhase
    reason: str
    message: str
    failure: Failure | None = None
    job_name: str | None = None
    """The scan's Job, when it is about one."""
    result: ScanResult | None = None
    """What a scan found that has just ended well."""
    finished: bool = False
    """The scan has just failed for this time."""
    retrying: bool = False
    """A failure that is tried again by itself."""
    forget: bool = False
    """The scan is to be made again, though it was made already."""
    again: bool = False
    """Another scan by the same rules is to be made, because this one failed in part or in whole."""
    scheduled_at: datetime | None = None
    """Another scan by the same rules is to be made, because this time of the schedule has come."""
    next_scan_at: datetime | None = None
    """The next time of the schedule."""
    apply: tuple[Obj, ...] = ()
    delete: tuple[ChildRef, ...] = ()
    requeue_after: float | None = None


def build_scan_status(view: ProjectView, decision: ScanDecision, store: str, now: datetime) -> ProjectStatus:
    """The whole new status; what an earlier scan found stays until a later one ends well.

    Args:
        view: What there is.
        decision: What was found out.
        store: The URI of the artifact store.
        now: The time.
    """
    project, before = view.project, view.project.status
    changes: dict[str, Any] = {
        "phase": decision.phase,
        "observed_generation": project.metadata.generation,
        "job_name": decision.job_name if decision.phase != "Ready" else None,
        "failure": decision.failure,
        "next_scan_at": format_time(decision.next_scan_at) if decision.next_scan_at else None,
    }
    if decision.result is not None:
        changes |= _tell_result(decision.result, project, store, now)
    elif decision.finished:
        changes |= {"config_digest": scan_digest(project), "sources": blame(project, decision.failure)}
    elif decision.forget:
        changes["config_digest"] = None
    elif decision.again:
        changes["retries"] = (before.retries or 0) + 1
    elif decision.scheduled_at is not None:
        changes["last_scheduled_at"] = format_time(decision.scheduled_at)
    status = before.model_copy(update=changes)
    wanted = {**_wanted(project, status, decision)}
    news = decision.result is not None or decision.finished
    known = conditions.find(before.conditions, CONDITION)
    if news:
        wanted |= describe_sources(project.metadata.name, status.sources)
    updated = conditions.update(before.conditions, wanted, project.metadata.generation, now)
    # What a former scan found out about the sources is not about a newer spec, so it is not marked as such.
    kept = [known] if known is not None and not news else []
    return status.model_copy(update={"conditions": [*updated, *kept]})


def build_scan_events(before: ProjectStatus, after: ProjectStatus) -> tuple[EventSpec, ...]:
    """What a person would want to see of the change."""
    condition = conditions.find(after.conditions, "Reconciling") or conditions.find(after.conditions, "Ready")
    message = condition.message if condition else ""
    events = []
    if after.failure is not None and after.failure != before.failure:
        text = f"{after.failure.message} {after.failure.hint}".strip()
        events.append(EventSpec("Warning", after.failure.reason, text))
    if after.failure is None:
        events += build_source_events(before, after)
    if after.phase == "Scanning" and after.job_name not in {None, before.job_name}:
        events.append(EventSpec("Normal", "ScanStarted", message))
    elif after.phase == "Ready" and after.config_digest != before.config_digest:
        events.append(EventSpec("Normal", "Scanned", f"{message} {_say_change(before, after)}"))
    elif after.phase != before.phase and (after.phase == "Suspended" or before.phase == "Suspended"):
        events.append(EventSpec("Normal", "Suspended" if after.phase == "Suspended" else "Resumed", message))
    return tuple(events)


def say_dataset(status: ProjectStatus) -> str:
    """What there is to train on, in a sentence."""
    files = status.files
    if files is None:
        return "The dataset is there."
    told = f"{files.accepted} of {files.total} files accepted: {files.trained} to train on, {files.held_out} held out."
    return f"{told} {say_unmatched(status.file_types)}".strip()


def _wanted(project: Project, status: ProjectStatus, decision: ScanDecision) -> conditions.Wanted:
    message = decision.message or say_dataset(status)
    if decision.phase == "Ready":
        return conditions.ready(decision.reason, message)
    if decision.phase == "Suspended":
        has_data = status.revision is not None
        return (conditions.ready if has_data else conditions.paused)(decision.reason, message)
    if decision.phase == "Failed" and not decision.retrying:
        return conditions.stalled(decision.reason, message)
    before = conditions.find(project.status.conditions, "Ready")
    if decision.phase == "Scanning" and before is not None and before.status == "True" and is_current(project):
        return conditions.refreshing(before, decision.reason, message)
    return conditions.reconciling(decision.reason, message)


def _tell_result(result: ScanResult, project: Project, store: str, now: datetime) -> dict[str, Any]:
    bounded = bound_result(result, [source.name for source in project.spec.sources])
    return {
        "revision": bounded.revision,
        "short_revision": bounded.revision.removeprefix("sha256:")[:_SHORT_DIGITS],
        "uri": store_uri(bounded.uri, store),
        "sources": bounded.sources,
        "types": say_types(bounded.file_types),
        "file_types": bounded.file_types,
        "files": bounded.files,
        "rejections": bounded.rejections,
        "config_digest": scan_digest(project),
        "rules_digest": rules_digest(project),
        "fetch_digest": fetch_digest(project),
        "scanned_at": format_time(now),
    }


def _say_change(before: ProjectStatus, after: ProjectStatus) -> str:
    if before.revision == after.revision:
        return f"The dataset is {after.short_revision} as before."
    return f"The dataset is {after.short_revision}, " + (
        f"no longer {before.short_revision}." if before.short_revision else "the first one."
    )
