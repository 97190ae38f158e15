"""The status of a Project: what was decided about its scan and what the scan found. Pure."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from codetune_api.common import Failure
from codetune_api.contracts import ScanResult
from codetune_api.project import Project, ProjectPhase, ProjectStatus, SourceStatus

from codetune_operator.reconcile import conditions
from codetune_operator.reconcile.durations import format_time
from codetune_operator.reconcile.observed import ProjectView
from codetune_operator.reconcile.plan import ChildRef, EventSpec, Obj
from codetune_operator.resources.scan import scan_digest, scan_job_name


@dataclass(frozen=True)
class ScanDecision:
    """What was found out about a scan and what is to be done about it."""

    phase: ProjectPhase
    reason: str
    message: str
    failure: Failure | None = None
    result: ScanResult | None = None
    """What a scan found that has just ended well."""
    finished: bool = False
    """The scan has just failed for this time."""
    retrying: bool = False
    """A failure that is tried again by itself."""
    forget: bool = False
    """The scan is to be made again, though it was made already."""
    apply: tuple[Obj, ...] = ()
    delete: tuple[ChildRef, ...] = ()
    requeue_after: float | None = None


def build_scan_status(view: ProjectView, decision: ScanDecision, now: datetime) -> ProjectStatus:
    """The whole new status; what an earlier scan found stays until a later one ends well."""
    project, before = view.project, view.project.status
    found = _tell_result(decision.result, project, now) if decision.result is not None else {}
    changes: dict[str, Any] = {
        **found,
        "phase": decision.phase,
        "observed_generation": project.metadata.generation,
        "job_name": scan_job_name(project) if decision.phase in {"Scanning", "Failed"} else None,
        "failure": decision.failure,
    }
    if decision.finished:
        changes |= {"config_digest": scan_digest(project), "sources": _blame(project, decision.failure)}
    elif decision.forget:
        changes["config_digest"] = None
    status = before.model_copy(update=changes)
    wanted = _wanted(status, decision)
    updated = conditions.update(before.conditions, wanted, project.metadata.generation, now)
    return status.model_copy(update={"conditions": updated})


def build_scan_events(before: ProjectStatus, after: ProjectStatus) -> tuple[EventSpec, ...]:
    """What a person would want to see of the change."""
    condition = conditions.find(after.conditions, "Ready")
    message = condition.message if condition else ""
    events = []
    if after.failure is not None and after.failure != before.failure:
        text = f"{after.failure.message} {after.failure.hint}".strip()
        events.append(EventSpec("Warning", after.failure.reason, text))
    if after.phase != before.phase and after.phase in {"Ready", "Suspended"}:
        events.append(EventSpec("Normal", "Scanned" if after.phase == "Ready" else "Suspended", message))
    elif after.phase == "Scanning" and before.phase != "Scanning":
        events.append(EventSpec("Normal", "ScanStarted", message))
    return tuple(events)


def say_dataset(status: ProjectStatus) -> str:
    """What there is to train on, in a sentence."""
    files = status.files
    if files is None:
        return "The dataset is there."
    return f"{files.accepted} of {files.total} files accepted: {files.trained} to train on, {files.held_out} held out."


def _wanted(status: ProjectStatus, decision: ScanDecision) -> conditions.Wanted:
    message = decision.message or say_dataset(status)
    if decision.phase == "Ready":
        return conditions.ready(decision.reason, message)
    if decision.phase == "Suspended":
        has_data = status.revision is not None
        return (conditions.ready if has_data else conditions.paused)(decision.reason, message)
    if decision.phase == "Failed" and not decision.retrying:
        return conditions.stalled(decision.reason, message)
    return conditions.reconciling(decision.reason, message)


def _tell_result(result: ScanResult, project: Project, now: datetime) -> dict[str, Any]:
    return {
        "revision": result.revision,
        "uri": result.uri,
        "sources": result.sources,
        "file_types": result.file_types,
        "files": result.files,
        "rejections": result.rejections,
        "config_digest": scan_digest(project),
        "scanned_at": format_time(now),
    }


def _blame(project: Project, failure: Failure | None) -> list[SourceStatus]:
    """The failure's message at the source that it names; what each source had before stays."""
    before = {source.name: source for source in project.status.sources}
    said = failure.message if failure is not None else ""
    names = [source.name for source in project.spec.sources]
    blamed = names if len(names) == 1 else [name for name in names if repr(name) in said]
    return [
        before.get(name, SourceStatus(name=name)).model_copy(update={"message": said if name in blamed else ""})
        for name in names
    ]
