"""Counts what a scan found, for status. Pure."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import PurePosixPath

from codetune_api.project import FileCounts, FileType, Rejection

from codetune_trainer.scan.deciding import Decided
from codetune_trainer.scan.languages import extension
from codetune_trainer.scan.records import Judged

_MOST_EXTENSIONS = 12
"""Extensions shown for a type, the most frequent first."""
_EXAMPLES = 3


def count_files(decided: Iterable[Decided]) -> FileCounts:
    """How many files went where."""
    counts: Counter[str] = Counter()
    size = 0
    for entry in decided:
        counts[entry.decision] += 1
        size += entry.file.size if entry.decision != "rejected" else 0
    accepted = counts["train"] + counts["holdout"]
    return FileCounts(
        total=counts.total(),
        accepted=accepted,
        rejected=counts["rejected"],
        trained=counts["train"],
        held_out=counts["holdout"],
        bytes=size,
    )


def count_types(decided: Iterable[Decided], is_selected: Callable[[str, str], bool]) -> list[FileType]:
    """The file type filter, the largest type first.

    Args:
        decided: Every file.
        is_selected: Whether `files.types` lets a language and file name through.
    """
    rows: dict[str, list[Decided]] = defaultdict(list)
    for entry in decided:
        rows[entry.file.language].append(entry)
    types = [_count_type(language, entries, is_selected) for language, entries in rows.items()]
    return sorted(types, key=lambda row: (-row.files, row.type))


def count_rejections(decided: Iterable[Decided]) -> list[Rejection]:
    """How many files each rule rejected, the busiest first, with the first paths as examples."""
    rows: dict[str, list[str]] = defaultdict(list)
    counts: Counter[str] = Counter()
    for entry in decided:
        if entry.decision != "rejected":
            continue
        counts[entry.file.reason] += 1
        if len(rows[entry.file.reason]) < _EXAMPLES:
            rows[entry.file.reason].append(entry.file.path)
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [Rejection(reason=reason, files=files, examples=rows[reason]) for reason, files in ordered]


def count_source(files: Iterable[Judged], name: str) -> tuple[int, int]:
    """Files of a source and their bytes."""
    sizes = [file.size for file in files if file.source == name]
    return len(sizes), sum(sizes)


def _count_type(language: str, entries: Sequence[Decided], is_selected: Callable[[str, str], bool]) -> FileType:
    names = [PurePosixPath(entry.file.path).name for entry in entries]
    endings = Counter(extension(name) for name in names)
    shown = sorted(endings.items(), key=lambda item: (-item[1], item[0]))[:_MOST_EXTENSIONS]
    accepted = sum(entry.decision != "rejected" for entry in entries)
    return FileType(
        type=language,
        extensions=[ending for ending, _ in shown],
        files=len(entries),
        accepted=accepted,
        rejected=len(entries) - accepted,
        bytes=sum(entry.file.size for entry in entries),
        selected=any(is_selected(language, name) for name in names),
    )
