"""The status of a FineTune: what was decided about it, and what its run says about itself. Pure."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from codetune_api.common import Condition, Failure
from codetune_api.contracts import TrainResult
from codetune_api.finetune import AdapterStatus, DatasetStatus, FineTunePhase, FineTuneStatus, Progress, ResumedFrom

from codetune_operator.reconcile import conditions
from codetune_operator.reconcile.durations import format_time, parse_time, say_duration
from codetune_operator.reconcile.observed import FineTuneView
from codetune_operator.reconcile.plan import ChildRef, EventSpec, Obj
from codetune_operator.reconcile.workloads import JobState
from codetune_operator.runs.report import RunReport

_FINISHED: frozenset[str] = frozenset({"Succeeded", "Failed"})
_STARTED: frozenset[str] = frozenset({"Running", "Succeeded"})


@dataclass(frozen=True)
class Decision:
    """What was found out about a run and what is to be done about it."""

    phase: FineTunePhase
    reason: str
    message: str
    failure: Failure | None = None
    dataset: DatasetStatus | None = None
    """The pinned dataset, as soon as there is one."""
    start: ResumedFrom | None = None
    """The adapter that the run begins with, as soon as it is chosen."""
    job_name: str | None = None
    job: JobState | None = None
    restarts: int = 0
    """How often the Job began again."""
    apply: tuple[Obj, ...] = ()
    delete: tuple[ChildRef, ...] = ()
    requeue_after: float | None = None


def build_status(view: FineTuneView, decision: Decision, now: datetime) -> FineTuneStatus:
    """The whole new status."""
    finetune, before = view.finetune, view.finetune.status
    told = _tell_run(view.report, before, decision)
    finished = decision.phase in _FINISHED
    finished_at = before.finished_at if before.phase in _FINISHED else None
    if finished and finished_at is None:
        finished_at = (decision.job.finished_at if decision.job else None) or format_time(now)
    started_at = before.started_at
    if started_at is None and decision.phase in _STARTED:
        started_at = (decision.job.started_at if decision.job else None) or format_time(now)
    changes: dict[str, Any] = {
        **told,
        "phase": decision.phase,
        "observed_generation": finetune.metadata.generation,
        "conditions": _build_conditions(view, decision, now),
        "resumed_from": decision.start or before.resumed_from,
        "job_name": decision.job_name or before.job_name,
        # Never fewer than before: a Job that was replaced takes its count along.
        "restarts": max(before.restarts or 0, view.report.resumed, decision.restarts),
        "started_at": started_at,
        "finished_at": finished_at if finished else None,
        "failure": decision.failure,
    }
    return before.model_copy(update=changes)


def build_events(before: FineTuneStatus, after: FineTuneStatus) -> tuple[EventSpec, ...]:
    """What a person would want to see of the change; nothing when the phase is the same."""
    events = []
    message = next((entry.message for entry in after.conditions if entry.type == "Ready"), "")
    if before.restarts is not None and (after.restarts or 0) > before.restarts:
        events.append(EventSpec("Warning", "Restarted", f"The run was started again, restart {after.restarts}."))
    failure = after.failure
    known = before.failure.reason if before.failure and before.phase == after.phase else None
    if failure is not None and failure.reason != known:
        events.append(EventSpec("Warning", failure.reason, f"{failure.message} {failure.hint}".strip()))
    if before.phase == after.phase:
        return tuple(events)
    if after.phase == "Running":
        first = before.started_at is None
        events.append(EventSpec("Normal", "Started" if first else "Resumed", message))
    elif after.phase in {"Succeeded", "Suspended", "WaitingForData"}:
        events.append(EventSpec("Normal", after.phase, message))
    return tuple(events)


def _build_conditions(view: FineTuneView, decision: Decision, now: datetime) -> list[Condition]:
    """Ready, Reconciling and Stalled, as kstatus reads them."""
    if decision.phase == "Succeeded":
        wanted = conditions.ready(decision.reason, decision.message)
    elif decision.phase == "Failed":
        wanted = conditions.stalled(decision.reason, decision.message)
    elif decision.phase == "Suspended":
        wanted = conditions.paused(decision.reason, decision.message)
    else:
        wanted = conditions.reconciling(decision.reason, decision.message)
    finetune = view.finetune
    return conditions.update(finetune.status.conditions, wanted, finetune.metadata.generation, now)


def _tell_run(report: RunReport, before: FineTuneStatus, decision: Decision) -> dict[str, Any]:
    """What the run said: from its result when there is one, else from its events so far."""
    if before.phase == "Succeeded":
        return {}
    result = report.result.train if report.result is not None else None
    parameters = (result.parameters if result else report.parameters) or before.parameters
    checkpoints = list(result.checkpoints if result else report.checkpoints)
    best = (result.best_checkpoint if result else report.best_checkpoint) or None
    latest = (result.latest_checkpoint if result else report.latest_checkpoint) or None
    chosen = next((entry for entry in checkpoints if entry.name == best), None)
    adapter = None
    if chosen is not None and parameters is not None:
        adapter = AdapterStatus(uri=chosen.uri, digest=chosen.digest, rank=parameters.rank)
    return {
        **_tell_progress(report, decision, result),
        "checkpoints": checkpoints,
        "best_checkpoint": best,
        "latest_checkpoint": latest,
        "loss_history": list(result.loss_history if result else report.loss_history),
        "evaluation": result.evaluation if result else before.evaluation,
        "parameters": parameters,
        "base_model": report.base_model or before.base_model,
        "dataset": _tell_dataset(report, decision),
        "adapter": adapter,
    }


def _tell_progress(report: RunReport, decision: Decision, result: TrainResult | None) -> dict[str, Any]:
    """Progress, and the time left while the run is at work."""
    progress = report.progress
    if decision.phase == "Succeeded" and result is not None:
        done = {"step": result.steps, "tokens": result.tokens, "percent": 100.0, "stage": ""}
        progress = (progress or Progress(total_steps=result.steps)).model_copy(update=done)
    remaining = report.remaining
    if decision.phase != "Running" or progress is None or progress.updated_at is None or remaining is None:
        return {"progress": progress, "eta": None, "remaining": None}
    end = parse_time(progress.updated_at) + timedelta(seconds=remaining)
    return {"progress": progress, "eta": format_time(end), "remaining": say_duration(remaining)}


def _tell_dataset(report: RunReport, decision: Decision) -> DatasetStatus | None:
    """The pin, with what the run counted in it."""
    pinned, counted = decision.dataset, report.dataset
    if pinned is None or counted is None or counted.revision != pinned.revision:
        return pinned
    return pinned.model_copy(update={"files": counted.files, "tokens": counted.tokens, "sources": counted.sources})
