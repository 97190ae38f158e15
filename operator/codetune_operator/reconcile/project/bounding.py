"""Bounds what a scan says, before it becomes status. Pure.

A result comes out of a pod that has read other people's files: names of types, extensions, paths and messages are
theirs. An API server refuses an object above about 1.5 MB, so a status that grows with its data would in the end be
none. Here every list and text has a limit, whatever was found, and what is left out is counted.
"""

from collections.abc import Iterable, Sequence

from codetune_api.contracts import ScanResult
from codetune_api.digests import canonical
from codetune_api.model import ApiModel
from codetune_api.project import FileType, Rejection, SourceStatus

MOST_TYPES = 256
TYPES_BYTES = 128 * 1024
"""Room for all rows of `fileTypes` together."""
MOST_REJECTIONS = 64
REJECTIONS_BYTES = 48 * 1024
"""Room for all rows of `rejections` together."""
MESSAGE_BYTES = 1024
"""Room for what is said about one source; there are at most 64 of them."""
OTHER_TYPES = "(other types)"
"""The row that counts the types for which there is no room."""
_NAME_BYTES = 64
_EXTENSION_BYTES = 32
_MOST_EXTENSIONS = 12
_EXAMPLE_BYTES = 256
_MOST_EXAMPLES = 3
_SHOWN_TYPES = 3
_SHOWN_UNMATCHED = 5
_ESCAPED = '<>&"\\'
"""Characters that an API server writes as up to six bytes."""


def bound_result(result: ScanResult, sources: Sequence[str]) -> ScanResult:
    """A scan's result as it may stand in status.

    Args:
        result: As the scan told it.
        sources: Names of the Project's sources; others are left out.
    """
    return result.model_copy(
        update={
            "sources": bound_sources(result.sources, sources),
            "file_types": bound_types(result.file_types),
            "rejections": bound_rejections(result.rejections),
        }
    )


def bound_sources(sources: Iterable[SourceStatus], names: Sequence[str]) -> list[SourceStatus]:
    """One row for each name, in the order of the names."""
    told = {source.name: source for source in sources}
    return [
        told.get(name, SourceStatus(name=name)).model_copy(
            update={
                "commit": clip(told[name].commit, _NAME_BYTES),
                "reason": clip(told[name].reason, _NAME_BYTES),
                "message": clip(told[name].message, MESSAGE_BYTES),
            }
            if name in told
            else {}
        )
        for name in names
    ]


def bound_types(types: Sequence[FileType]) -> list[FileType]:
    """The first rows, as many as there is room for; the others are summed up in one row."""
    rows: dict[str, FileType] = {}
    rest: list[FileType] = []
    room = TYPES_BYTES
    for row in types:
        short = _shorten_type(row)
        room -= _size(short)
        if short.type in {*rows, OTHER_TYPES} or len(rows) >= MOST_TYPES - 1 or room < 0:
            rest.append(row)
        else:
            rows[short.type] = short
    return [*rows.values(), *([_sum(rest)] if rest else [])]


def bound_rejections(rejections: Sequence[Rejection]) -> list[Rejection]:
    """Each reason once, with at most three examples while there is room for them."""
    rows: dict[str, Rejection] = {}
    room = REJECTIONS_BYTES
    for row in rejections[:MOST_REJECTIONS]:
        examples = [clip(example, _EXAMPLE_BYTES) for example in row.examples[:_MOST_EXAMPLES]]
        short = Rejection(reason=clip(row.reason, _NAME_BYTES), files=row.files, examples=examples)
        room -= _size(short)
        rows.setdefault(short.reason, short if room >= 0 else short.model_copy(update={"examples": []}))
    return list(rows.values())


def say_types(types: Sequence[FileType]) -> str:
    """The types with the most accepted files, for people: `Python 812, Go 40, 3 more`."""
    accepted = sorted((row for row in types if row.accepted), key=lambda row: (-row.accepted, row.type))
    shown = [f"{row.type} {row.accepted}" for row in accepted[:_SHOWN_TYPES]]
    more = len(accepted) - len(shown)
    return ", ".join([*shown, *([f"{more} more"] if more else [])])


def say_unmatched(types: Sequence[FileType]) -> str:
    """What `files.types` asks for and no file is of, most likely by a slip, in a sentence; empty when there is none."""
    lacking = [row.type for row in types if not row.files and row.type != OTHER_TYPES]
    more = len(lacking) - _SHOWN_UNMATCHED
    shown = ", ".join([*lacking[:_SHOWN_UNMATCHED], *([f"{more} more"] if more > 0 else [])])
    return f"No file is of these types in files.types: {shown}." if lacking else ""


def clip(text: str, limit: int) -> str:
    """A text of at most so many bytes in an API server's JSON, printable; the end of one that is too long is cut."""
    printable = "".join(letter if letter.isprintable() else "�" for letter in text[: limit + 1])
    if sum(map(_cost, printable)) <= limit:
        return printable
    left, kept = limit - _cost("…"), 0
    for letter in printable:
        left -= _cost(letter)
        if left < 0:
            break
        kept += 1
    return printable[:kept] + "…"


def _cost(letter: str) -> int:
    return 6 if letter in _ESCAPED else len(letter.encode())


def _shorten_type(row: FileType) -> FileType:
    endings = [clip(ending, _EXTENSION_BYTES) for ending in row.extensions[:_MOST_EXTENSIONS]]
    return row.model_copy(update={"type": clip(row.type, _NAME_BYTES), "extensions": endings})


def _sum(rows: Sequence[FileType]) -> FileType:
    return FileType(
        type=OTHER_TYPES,
        files=sum(row.files for row in rows),
        accepted=sum(row.accepted for row in rows),
        rejected=sum(row.rejected for row in rows),
        bytes=sum(row.bytes for row in rows),
        selected=any(row.selected for row in rows),
    )


def _size(row: ApiModel) -> int:
    return sum(map(_cost, canonical(row.to_wire()).decode()))
