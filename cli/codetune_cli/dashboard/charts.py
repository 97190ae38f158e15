"""The loss chart of a run as shapes of an SVG. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from codetune_api.finetunestatus import LossPoint

WIDTH, HEIGHT = 760, 280
"""Of the whole picture, in its own units."""
_TICKS = 5
"""About how many numbers an axis has."""


@dataclass(frozen=True)
class Frame:
    """Where the lines are drawn, inside what is kept free for the numbers beside the axes."""

    left: int
    right: int
    top: int
    bottom: int


FRAME = Frame(left=52, right=WIDTH - 16, top=12, bottom=HEIGHT - 30)


@dataclass(frozen=True)
class Tick:
    """A number on an axis."""

    at: float
    text: str


@dataclass(frozen=True)
class Dot:
    """A point with its value."""

    x: float
    y: float
    text: str


@dataclass(frozen=True)
class Chart:
    """What is drawn; coordinates are those of the picture, y runs downwards."""

    training: str
    """Points of the line of training loss, as `polyline` takes them."""
    held_out: tuple[Dot, ...]
    """Held-out loss at the checkpoints."""
    best: float | None
    """Where the best checkpoint is, on the axis of steps."""
    steps: tuple[Tick, ...]
    losses: tuple[Tick, ...]

    @property
    def held_out_line(self) -> str:
        """The line through them, as `polyline` takes it."""
        return " ".join(f"{dot.x:.1f},{dot.y:.1f}" for dot in self.held_out)


def draw(points: Sequence[LossPoint], best_step: int | None = None) -> Chart | None:
    """The chart of a loss history; None where there is nothing to draw.

    Args:
        points: `status.lossHistory`.
        best_step: Step of the best checkpoint.
    """
    if not points:
        return None
    losses = [point.loss for point in points]
    losses += [point.holdout_loss for point in points if point.holdout_loss is not None]
    last = max(point.step for point in points)
    low, high, marks = _round_out(min(losses), max(losses))
    across = _Scale(0, max(last, 1), FRAME.left, FRAME.right)
    down = _Scale(low, high, FRAME.bottom, FRAME.top)
    return Chart(
        training=" ".join(f"{across.place(point.step):.1f},{down.place(point.loss):.1f}" for point in points),
        held_out=tuple(
            Dot(across.place(point.step), down.place(loss), f"step {point.step}: {loss:.4g} held out")
            for point in points
            if (loss := point.holdout_loss) is not None
        ),
        best=None if best_step is None or best_step > last else across.place(best_step),
        steps=tuple(Tick(across.place(step), f"{step:g}") for step in _mark_steps(last)),
        losses=tuple(Tick(down.place(mark), f"{mark:g}") for mark in marks),
    )


@dataclass(frozen=True)
class _Scale:
    """Maps values to places in the picture."""

    low: float
    high: float
    first: float
    last: float

    def place(self, value: float) -> float:
        """Where a value stands."""
        return self.first + (value - self.low) / (self.high - self.low) * (self.last - self.first)


def _round_out(low: float, high: float) -> tuple[float, float, list[float]]:
    """Bounds around two losses that are round numbers, and the round numbers from one to the other."""
    width = _round_up((high - low) / _TICKS if high > low else max(abs(high), 1e-6) / 10)
    first, last = math.floor(low / width), math.ceil(high / width)
    last += first == last
    marks = [float(f"{number * width:.10g}") for number in range(first, last + 1)]
    return marks[0], marks[-1], marks


def _mark_steps(last: int) -> list[int]:
    width = max(1, int(_round_up(last / _TICKS)))
    return list(range(0, last + 1, width))


def _round_up(width: float) -> float:
    """The next of 1, 2 and 5 times a power of ten."""
    size = 10 ** math.floor(math.log10(width)) if width > 0 else 1.0
    return next(size * factor for factor in (1, 2, 5, 10) if size * factor >= width * (1 - 1e-9))
