"""Is the tuned model better than its base, and is that more than chance? Pure.

Intervals are percentiles of a paired bootstrap over files (Efron 1979; Koehn 2004 for paired systems): the same files
drawn for both models, whole files at a time, because the places of one file are alike.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from codetune_api.finetune import Evaluation, EvaluationScores, Interval

from codetune_trainer.train.scoring.answering import Mark

SAMPLES = 2000
CONFIDENCE = 0.95
LEAST_FILES = 5
"""With fewer files than this, resampling them says nothing about files that were not seen."""

Row = tuple[float, float, float]
"""(base, tuned, weight) of one file: sums over its places."""


@dataclass(frozen=True)
class Scored:
    """What one model scored."""

    loss: float
    """Mean over all targets, in nats per token."""
    files: list[tuple[float, int]]
    """(sum of cross-entropies, targets) of each file."""
    lines: list[Mark]
    middles: list[Mark]


def compare(base: Scored, tuned: Scored, *, selection_files: int = 0, provenance: str = "") -> Evaluation:
    """Both scores, how sure their difference is, and a sentence that says so.

    Args:
        base: What the base model scored.
        tuned: What the best checkpoint scored.
        selection_files: How many other files it was chosen by; 0: by these.
        provenance: What has to be said of files that the adapter has seen before; ends the sentence.
    """
    scores = _summarize(base), _summarize(tuned)
    improvement = (base.loss - tuned.loss) / base.loss if base.loss else 0.0
    of_loss = _interval(_rows_of_losses(base.files, tuned.files), lambda before, after, _: (before - after) / before)
    of_lines = _interval(_rows_of_marks(base.lines, tuned.lines), _mean_difference)
    of_middles = _interval(_rows_of_marks(base.middles, tuned.middles), _mean_difference)
    found = Evaluation(
        base=scores[0],
        tuned=scores[1],
        improvement=round(improvement, 6),
        improvement_interval=of_loss,
        exact_match_interval=of_lines,
        infill_exact_match_interval=of_middles,
        verdict=_judge(of_loss),
        files=len(base.files),
        selection_files=selection_files,
        tokens=sum(count for _, count in base.files),
        lines=len(base.lines),
        infills=len(base.middles),
    )
    return found.model_copy(update={"message": f"{say(found)} {provenance}".strip()})


def say(found: Evaluation) -> str:
    """The sentence that stands in status and in `kubectl describe`."""
    parts = [f"Held-out loss {_say_loss(found)} on {found.files} files, {found.tokens} tokens"]
    pairs = [
        ("next line exact", found.base.exact_match, found.tuned.exact_match, found.lines, found.exact_match_interval),
        (
            "fill-in-the-middle exact",
            found.base.infill_exact_match,
            found.tuned.infill_exact_match,
            found.infills,
            found.infill_exact_match_interval,
        ),
    ]
    for what, base, tuned, count, interval in pairs:
        if base is not None and tuned is not None:
            chance = "" if base == tuned else f" ({_say_chance(interval)})"
            parts.append(f"{what} {base * count:.0f}/{count} → {tuned * count:.0f}/{count}{chance}")
    chose = "" if found.selection_files else " The same files chose the checkpoint."
    return "; ".join(parts) + "." + chose


def _say_loss(found: Evaluation) -> str:
    base, tuned = found.base.loss, found.tuned.loss
    if tuned == base:
        return f"stayed at {base:.3f}"
    verb, judged = ("fell", "better") if tuned < base else ("rose", "worse")
    sure = _say_chance(found.improvement_interval)
    if found.improvement_interval is not None:
        # As much as the number before it says: of a loss that rose, how much worse.
        low, high = found.improvement_interval.low, found.improvement_interval.high
        low, high = (low, high) if tuned < base else (-high, -low)
        sure = f"95% interval {low:.1%} to {high:.1%}, {sure}"
    return f"{verb} from {base:.3f} to {tuned:.3f} ({abs(found.improvement):.1%} {judged}; {sure})"


def _say_chance(interval: Interval | None) -> str:
    if interval is None:
        return "too few files to tell chance apart"
    return "could be chance" if _judge(interval) == "Unclear" else "more than chance"


def _judge(interval: Interval | None) -> Literal["Better", "Worse", "Unclear"]:
    if interval is None or interval.low <= 0 <= interval.high:
        return "Unclear"
    return "Better" if interval.low > 0 else "Worse"


def _summarize(scored: Scored) -> EvaluationScores:
    return EvaluationScores(
        loss=scored.loss,
        exact_match=_mean([float(mark.exact) for mark in scored.lines]),
        edit_similarity=_mean([mark.similarity for mark in scored.lines]),
        infill_exact_match=_mean([float(mark.exact) for mark in scored.middles]),
        infill_edit_similarity=_mean([mark.similarity for mark in scored.middles]),
    )


def _mean(values: Sequence[float]) -> float | None:
    return round(sum(values) / len(values), 6) if values else None


def _mean_difference(base: float, tuned: float, weight: float) -> float:
    return (tuned - base) / weight


def _rows_of_losses(base: list[tuple[float, int]], tuned: list[tuple[float, int]]) -> list[Row]:
    return [(before, after, count) for (before, count), (after, _) in zip(base, tuned, strict=True) if count]


def _rows_of_marks(base: list[Mark], tuned: list[Mark]) -> list[Row]:
    rows: dict[str, Row] = {}
    for before, after in zip(base, tuned, strict=True):
        sums = rows.get(before.file, (0.0, 0.0, 0.0))
        rows[before.file] = (sums[0] + before.exact, sums[1] + after.exact, sums[2] + 1)
    return list(rows.values())


def _interval(rows: list[Row], statistic: Callable[[float, float, float], float]) -> Interval | None:
    """Percentiles of the statistic over files drawn with replacement, the same draw for both models."""
    if len(rows) < LEAST_FILES:
        return None
    chance = random.Random("bootstrap")
    found = []
    for _ in range(SAMPLES):
        drawn = chance.choices(rows, k=len(rows))
        found.append(statistic(*(sum(column) for column in zip(*drawn, strict=True))))
    found.sort()
    cut = round((1 - CONFIDENCE) / 2 * SAMPLES)
    return Interval(low=round(found[cut], 6), high=round(found[-1 - cut], 6))
