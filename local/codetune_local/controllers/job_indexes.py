"""Completion indexes of Indexed Jobs: "1,3-5,7" ↔ a set of numbers, and which one a pod has. Pure."""

from collections.abc import Collection

from codetune_local.machinery.objects import Obj, annotations_of

INDEX_KEY = "batch.kubernetes.io/job-completion-index"
"""Annotation and label of a pod."""


def parse_indexes(text: str | None) -> set[int]:
    """Read status.completedIndexes."""
    indexes: set[int] = set()
    for part in (text or "").split(","):
        first, _, last = part.partition("-")
        if first:
            indexes.update(range(int(first), int(last or first) + 1))
    return indexes


def format_indexes(indexes: Collection[int]) -> str:
    """Write them in runs: two neighbours stay a list, three or more become a range."""
    parts: list[str] = []
    ordered = sorted(indexes)
    at = 0
    while at < len(ordered):
        end = at
        while end + 1 < len(ordered) and ordered[end + 1] == ordered[end] + 1:
            end += 1
        run = ordered[at : end + 1]
        parts += [f"{run[0]}-{run[-1]}"] if len(run) > 2 else [str(index) for index in run]
        at = end + 1
    return ",".join(parts)


def index_of(pod: Obj) -> int | None:
    """The completion index of a pod; None when it has none."""
    text = annotations_of(pod).get(INDEX_KEY, "")
    return int(text) if text.isdecimal() else None
