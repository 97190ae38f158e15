"""Counts what a scan found, for status. Pure but for reading the paths of examples."""

import json
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from codetune_api.project import FileCounts, FileType, Rejection

from codetune_trainer.scan.dataset.deciding import Sides
from codetune_trainer.scan.dataset.ledger import OTHER, SELECTED, Ledger
from codetune_trainer.scan.records import REASONS
from codetune_trainer.scan.rules.languages import extension, known_languages

_MOST_EXTENSIONS = 12
"""Extensions shown for a type, the most frequent first."""
_EXAMPLES = 3


def count_files(ledger: Ledger, sides: Sides) -> FileCounts:
    """How many files went where."""
    accepted, held_out = int(sides.kept.sum()), int(sides.held_out.sum())
    return FileCounts(
        total=len(ledger),
        accepted=accepted,
        rejected=len(ledger) - accepted,
        trained=accepted - held_out,
        held_out=held_out,
        bytes=int(ledger.records["size"][sides.kept].sum()),
    )


def count_types(ledger: Ledger, sides: Sides, asked: Sequence[str]) -> list[FileType]:
    """The file type filter, the largest type first; last, without a file, what it asks for and nothing is of.

    Args:
        ledger: What was found.
        sides: Where each file went.
        asked: `files.types`.
    """
    rows: dict[str, list[int]] = defaultdict(list)
    for number, (language, _) in enumerate(ledger.kinds):
        rows[language].append(number)
    kinds = ledger.records["kind"]
    files = _sum(kinds, np.ones(len(ledger), np.bool_), len(ledger.kinds))
    accepted = _sum(kinds, sides.kept, len(ledger.kinds))
    selected = _sum(kinds, ledger.has(SELECTED), len(ledger.kinds))
    sizes = _sum(kinds, ledger.records["size"], len(ledger.kinds))
    types = []
    for language, numbers in rows.items():
        endings = sorted((-int(files[number]), ledger.kinds[number][1]) for number in numbers)
        total, taken = int(files[numbers].sum()), int(accepted[numbers].sum())
        row = FileType(
            type=language,
            extensions=[ending for _, ending in endings[:_MOST_EXTENSIONS]],
            files=total,
            accepted=taken,
            rejected=total - taken,
            bytes=int(sizes[numbers].sum()),
            selected=bool(selected[numbers].any()),
        )
        types.append(row)
    there = sorted((row for row in types if row.files), key=lambda row: (-row.files, row.type))
    return [*there, *(FileType(type=name) for name in _find_unmatched(ledger, asked))]


def _find_unmatched(ledger: Ledger, asked: Sequence[str]) -> list[str]:
    """Languages and extensions that are asked for and no file is of, each once.

    Of an extension with several dots (`.d.ts`) only the last part is looked for.
    """
    there = [ledger.kinds[number] for number in np.unique(ledger.records["kind"]).tolist()]
    languages, endings = {language for language, _ in there}, {ending.lower() for _, ending in there}
    names: dict[str, str] = {}
    for entry in asked:
        name = known_languages().get(entry.lower(), entry.lstrip("*"))
        last = extension(name.lower())
        is_there = any(ending.endswith((last, OTHER)) for ending in endings) if name[0] == "." else name in languages
        if not is_there:
            names.setdefault(name.lower(), name)
    return list(names.values())


def count_rejections(ledger: Ledger, reasons: npt.NDArray[np.uint8]) -> list[Rejection]:
    """How many files each rule rejected, the busiest first, with the first paths as examples."""
    rejections = []
    for number, reason in enumerate(REASONS):
        found = np.flatnonzero(reasons == number)
        if number and len(found):
            examples = [path_of(ledger, index) for index in found[:_EXAMPLES].tolist()]
            rejections.append(Rejection(reason=reason, files=len(found), examples=examples))
    return sorted(rejections, key=lambda row: (-row.files, row.reason))


def count_source(ledger: Ledger, number: int) -> tuple[int, int]:
    """Files of the source of that number, and their bytes."""
    of_source = ledger.records["source"] == number
    return int(of_source.sum()), int(ledger.records["size"][of_source].sum())


def path_of(ledger: Ledger, index: int) -> str:
    """The path of a file."""
    path: str = json.loads(ledger.row(index))["path"]
    return path


def _sum(kinds: npt.NDArray[np.uint32], values: npt.NDArray[Any], count: int) -> npt.NDArray[np.int64]:
    # Sums in float64 are exact up to 2^53.
    return np.bincount(kinds, weights=values, minlength=count).astype(np.int64)
