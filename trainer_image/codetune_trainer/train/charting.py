"""The loss chart of a run: few points, the whole run. Pure."""

from collections.abc import Sequence

from codetune_api.finetune import LossPoint

MOST_POINTS = 100
Point = tuple[int, float, float | None]
"""(step, training loss, held-out loss where it was measured)."""


def add_point(points: Sequence[Point], new: Point, total: int) -> tuple[Point, ...]:
    """The points with a new one, at most one for each hundredth of `total` steps.

    In each hundredth the last point wins, but not over one with a held-out loss, which is rare.
    """
    chosen: dict[int, Point] = {}
    for point in [*(point for point in points if point[0] != new[0]), new]:
        stretch = point[0] if total < MOST_POINTS else min(MOST_POINTS - 1, point[0] * MOST_POINTS // total)
        before = chosen.get(stretch)
        if before is None or before[2] is None or point[2] is not None:
            chosen[stretch] = point
    return tuple(chosen[stretch] for stretch in sorted(chosen))


def build_chart(points: Sequence[Point]) -> list[LossPoint]:
    """The points as they stand in status."""
    return [LossPoint(step=step, loss=loss, holdout_loss=held_out) for step, loss, held_out in points]
