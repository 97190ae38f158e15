"""The loss chart of a run as text that can be read without colours, and its points for programs. Pure."""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from typing import Any

import plotext
from codetune_api.finetune import FineTune, FineTuneStatus
from codetune_api.finetunestatus import LossPoint

_X_TICKS = 5
_plot: Any = plotext
"""The library publishes no types; it draws one figure at a time."""


def draw_chart(finetune: FineTune, width: int, height: int) -> str:
    """The chart and what stands below it. There is at least one point."""
    return "\n".join([_draw(finetune.status, width, height), *describe_run(finetune)])


def list_points(points: Sequence[LossPoint], form: str) -> str:
    """The points for a program: `csv` with a header, or `json`, one object a line."""
    if form == "json":
        return "\n".join(json.dumps(point.to_wire()) for point in points)
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["step", "loss", "holdoutLoss"])
    writer.writerows([point.step, point.loss, point.holdout_loss] for point in points)
    return table.getvalue().rstrip("\n")


def describe_run(finetune: FineTune) -> Iterator[str]:
    """How far the run is, and which checkpoint is the best."""
    status = finetune.status
    told = f"{finetune.metadata.name}: {status.phase or 'Pending'}"
    if status.progress is not None and status.progress.total_steps:
        progress = status.progress
        told += f" at step {progress.step} of {progress.total_steps} ({progress.percent:.0f} %)"
        # What it does besides training takes time in which no step is made.
        told += f", {progress.stage}" if status.phase == "Running" and progress.stage not in {"", "Training"} else ""
    if status.phase == "Running" and status.remaining:
        told += f", {status.remaining} to go"
    if status.phase == "Failed" and status.failure is not None:
        told += f": {status.failure.reason}: {status.failure.message}"
    yield told
    best = status.best
    if best is not None:
        loss = "" if best.holdout_loss is None else f", held-out loss {best.holdout_loss:.4f}"
        yield f"Best checkpoint: {best.name}{loss}"


def _draw(status: FineTuneStatus, width: int, height: int) -> str:
    points, best = status.loss_history, status.best
    steps = [point.step for point in points]
    held_out = [(point.step, point.holdout_loss) for point in points if point.holdout_loss is not None]
    _plot.clear_figure()
    _plot.theme("clear")  # without colours
    _plot.limit_size(False, False)  # the size is decided here, not by a terminal that may not be there
    _plot.plot_size(width, height)
    _plot.plot(steps, [point.loss for point in points], marker="·")
    shown = ["· training"]
    if held_out:
        _plot.scatter(*zip(*held_out, strict=True), marker="o")
        shown.append("o held-out")
    if best is not None and best.holdout_loss is not None:
        _plot.scatter([best.step], [best.holdout_loss], marker="*")
        steps.append(best.step)
        shown.append("* best checkpoint")
    # Not the library's legend: it would lie on the first steps, where the loss falls.
    _plot.title(f"loss by step: {', '.join(shown)}")
    first, last = min(steps), max(steps)
    _plot.xticks(sorted({round(first + (last - first) * part / (_X_TICKS - 1)) for part in range(_X_TICKS)}))
    drawn: str = _plot.uncolorize(_plot.build())
    return "\n".join(line.rstrip() for line in drawn.splitlines())
