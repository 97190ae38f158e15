"""What a run has said so far: protocol lines folded into one value. Pure.

Lines of a log come again when a stream is picked up after a break or after a restart of the operator. Folding the same
line twice changes nothing, and a line from before the last one that counted is left out.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from codetune_api.common import ModelPin
from codetune_api.finetune import CheckpointStatus, DatasetStatus, FineTuneStatus, LossPoint, Parameters, Progress
from codetune_api.protocol import (
    CheckpointEvent,
    DatasetEvent,
    Event,
    ModelEvent,
    ParametersEvent,
    ProgressEvent,
    ResultEvent,
    ResumedEvent,
    StageEvent,
)

from codetune_operator.resources.models import pin_model

LOSS_POINTS = 100
"""Most points of the loss chart."""
_TIMESTAMP = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d+))?(Z|[+-]\d\d:\d\d)")


@dataclass(frozen=True)
class RunReport:
    """All that a run's log says, over every attempt."""

    stage: str = ""
    stage_message: str = ""
    """What the stage is about, e.g. the file that is being fetched."""
    progress: Progress | None = None
    remaining: float | None = None
    """Seconds to the end, counted from `progress.updated_at`."""
    parameters: Parameters | None = None
    base_model: ModelPin | None = None
    dataset: DatasetStatus | None = None
    checkpoints: tuple[CheckpointStatus, ...] = ()
    """Those that are in the store, by step."""
    loss_history: tuple[LossPoint, ...] = ()
    """The whole run in at most 100 points, by step."""
    resumed: int = 0
    """How often an attempt went on from a checkpoint."""
    result: ResultEvent | None = None
    read_to: str | None = None
    """Time of the last line that counted, in UTC and as fine as the log gave it."""

    @property
    def latest_checkpoint(self) -> str | None:
        """Name of the checkpoint with the most steps."""
        return self.checkpoints[-1].name if self.checkpoints else None

    @property
    def best_checkpoint(self) -> str | None:
        """Name of the checkpoint with the lowest held-out loss; without one, the latest."""
        measured = [entry for entry in self.checkpoints if entry.holdout_loss is not None]
        if not measured:
            return self.latest_checkpoint
        return min(measured, key=lambda entry: entry.holdout_loss or 0.0).name


def from_status(status: FineTuneStatus) -> RunReport:
    """The report as far as a status tells it: where the operator goes on after a restart."""
    progress = status.progress
    return RunReport(
        stage=progress.stage if progress else "",
        progress=progress,
        parameters=status.parameters,
        base_model=status.base_model,
        dataset=status.dataset,
        checkpoints=tuple(sorted(status.checkpoints, key=lambda entry: entry.step)),
        loss_history=tuple(status.loss_history),
        resumed=status.restarts or 0,
        read_to=progress.updated_at if progress else None,
    )


def fold(report: RunReport, event: Event, timestamp: str) -> RunReport:
    """The report after one more line.

    Args:
        report: What was known before.
        event: The line.
        timestamp: When it was written, RFC 3339 as the log gives it.
    """
    if report.read_to is not None and sort_key(timestamp) < sort_key(report.read_to):
        return report
    again = report.read_to is not None and sort_key(timestamp) == sort_key(report.read_to)
    folded, moment = _fold(report, event, again), _in_utc(timestamp)
    progress = (folded.progress or Progress()).model_copy(update={"stage": folded.stage, "updated_at": moment})
    return replace(folded, progress=progress, read_to=moment)


def sort_key(timestamp: str) -> tuple[datetime, int]:
    """Second and nanosecond of an RFC 3339 time with any fraction and zone, in UTC; text that is no time is first."""
    matched = _TIMESTAMP.fullmatch(timestamp)
    if matched is None:
        return datetime.min.replace(tzinfo=UTC), 0
    second, fraction, zone = matched.groups()
    return datetime.fromisoformat(f"{second}{zone}").astimezone(UTC), int(f"{fraction or 0:0<9}")


def _in_utc(timestamp: str) -> str:
    """A log gives the zone of its node; status has one zone."""
    if timestamp.endswith("Z") or _TIMESTAMP.fullmatch(timestamp) is None:
        return timestamp
    second, nanosecond = sort_key(timestamp)
    return f"{second:%Y-%m-%dT%H:%M:%S}.{nanosecond:09}Z"


def _fold(report: RunReport, event: Event, again: bool) -> RunReport:
    match event:
        case StageEvent():
            return replace(report, stage=event.stage, stage_message=event.message)
        case ProgressEvent():
            return _fold_progress(report, event)
        case ParametersEvent():
            return replace(report, parameters=event.parameters)
        case ModelEvent():
            return replace(report, base_model=pin_model(event.repository, event.commit))
        case DatasetEvent():
            return replace(report, dataset=event.dataset)
        case CheckpointEvent():
            return _fold_checkpoint(report, event)
        case ResumedEvent():
            why = f"The run went on from {event.checkpoint}" if event.checkpoint else "The run began anew"
            went_back = _go_back(report, event.step, why, event.message)
            return replace(went_back, resumed=report.resumed + (1 if event.restarted and not again else 0))
        case ResultEvent():
            return replace(report, result=event, remaining=None)
    return report


def _fold_progress(report: RunReport, event: ProgressEvent) -> RunReport:
    before = report.progress or Progress()
    if event.step < before.step:
        # An attempt that found no checkpoint starts over.
        report = _go_back(report, event.step, "The run began anew, because it had no whole checkpoint")
        before = report.progress or Progress()
    progress = before.model_copy(
        update={
            "step": event.step,
            "total_steps": event.total,
            "percent": _percent(event.step, event.total),
            "epoch": event.epoch,
            "loss": event.loss if event.loss is not None else before.loss,
            "holdout_loss": event.holdout_loss if event.holdout_loss is not None else before.holdout_loss,
            "learning_rate": event.lr if event.lr is not None else before.learning_rate,
            "tokens": event.tokens,
            "tokens_per_second": event.tokens_per_second,
        }
    )
    history = report.loss_history
    if event.loss is not None:
        point = LossPoint(step=event.step, loss=event.loss, holdout_loss=event.holdout_loss)
        history = _add_point(history, point, event.total)
    return replace(report, progress=progress, remaining=event.remaining, loss_history=history)


def _fold_checkpoint(report: RunReport, event: CheckpointEvent) -> RunReport:
    new = event.checkpoint
    gone = {new.name, *event.removed}
    kept = [entry for entry in report.checkpoints if entry.name not in gone]
    checkpoints = tuple(sorted([*kept, new], key=lambda entry: entry.step))
    progress = report.progress or Progress()
    history = report.loss_history
    if new.holdout_loss is not None:
        progress = progress.model_copy(update={"holdout_loss": new.holdout_loss})
    if new.loss is not None:
        point = LossPoint(step=new.step, loss=new.loss, holdout_loss=new.holdout_loss)
        history = _add_point(history, point, max(progress.total_steps, new.step))
    return replace(report, checkpoints=checkpoints, progress=progress, loss_history=history)


def _go_back(report: RunReport, step: int, why: str, more: str = "") -> RunReport:
    """Steps after this one are repeated: what was known of them does not hold any more."""
    progress = report.progress
    if progress is not None:
        repeated = f"; steps {step + 1} to {progress.step} are repeated" if progress.step > step else ""
        # A line that is read again finds the run where it sent it.
        is_told = progress.step == step and progress.message.startswith(why)
        said = progress.message if is_told else f"{why}{repeated}. {more}".rstrip()
        percent = _percent(step, progress.total_steps)
        progress = progress.model_copy(update={"step": step, "percent": percent, "message": said})
    return replace(
        report,
        progress=progress,
        remaining=None,
        checkpoints=tuple(entry for entry in report.checkpoints if entry.step <= step),
        loss_history=tuple(point for point in report.loss_history if point.step <= step),
    )


def _percent(step: int, total: int) -> float:
    return round(min(100.0, 100.0 * step / total), 1) if total > 0 else 0.0


def _add_point(points: Sequence[LossPoint], new: LossPoint, total: int) -> tuple[LossPoint, ...]:
    """One point a stretch of the run, so that the chart spans all of it however long it is.

    In each stretch the last point wins, but not over one that also has the held-out loss, which is rare.
    """
    chosen: dict[int, LossPoint] = {}
    for point in sorted([*(point for point in points if point.step != new.step), _merge(points, new)], key=_step):
        stretch = _stretch(point.step, total)
        before = chosen.get(stretch)
        if before is None or before.holdout_loss is None or point.holdout_loss is not None:
            chosen[stretch] = point
    return tuple(chosen[stretch] for stretch in sorted(chosen))


def _merge(points: Sequence[LossPoint], new: LossPoint) -> LossPoint:
    """A step's training loss and its held-out loss come in two lines."""
    old = next((point for point in points if point.step == new.step), None)
    if old is None or new.holdout_loss is not None or old.holdout_loss is None:
        return new
    return new.model_copy(update={"holdout_loss": old.holdout_loss})


def _stretch(step: int, total: int) -> int:
    return step if total < LOSS_POINTS else min(LOSS_POINTS - 1, step * LOSS_POINTS // total)


def _step(point: LossPoint) -> int:
    return point.step
