"""Looks at, reads and judges batches of files: what each process of a scan does."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from codetune_api.project import FileRules, Holdout

from codetune_trainer.manifests import write_parts
from codetune_trainer.scan.archive.pack import read_packed
from codetune_trainer.scan.dataset.ledger import (
    LINE_HELD_OUT,
    MUST,
    NORMAL_BYTES,
    RECORD,
    ROW_HELD_OUT,
    SELECTED,
    WANTED,
    Judgement,
    Kind,
    Records,
)
from codetune_trainer.scan.dataset.likeness import PERMUTATIONS, Signatures, take_fingerprints
from codetune_trainer.scan.dataset.lines import build_line, build_row
from codetune_trainer.scan.dataset.winnowing import Prints
from codetune_trainer.scan.git.objects import BlobReader
from codetune_trainer.scan.judging.identities import Known, Places, identify
from codetune_trainer.scan.records import REASONS, Found, Judged
from codetune_trainer.scan.rules.headers import cut_header
from codetune_trainer.scan.rules.judge import READ_LIMIT_BYTES, Judge, Origin
from codetune_trainer.scan.rules.languages import extension
from codetune_trainer.scan.sources.preparing import Readable
from codetune_trainer.scan.sources.upload_tree import read_content
from codetune_trainer.scan.sources.volumes import Looked, VolumeReader, describe

_REASON_NUMBERS = {reason: number for number, reason in enumerate(REASONS)}
_NO_SIGNATURES: Signatures = np.zeros((0, PERMUTATIONS), np.uint16)
_NO_PRINTS: Prints = np.zeros(0, np.uint32)
BATCH_FILES = 256
BATCH_BYTES = 4 * 2**20
"""A batch ends when it has this many files or holds this much text, whichever comes first."""
_Entry = TypeVar("_Entry")


@dataclass(frozen=True)
class Task:
    """What is the same for all files of a scan; a plain value, so that it can be sent to other processes."""

    sources: Sequence[Readable]
    origins: Sequence[Origin]
    files: FileRules
    holdout: Holdout
    work: Path
    """Folder for rows and lines."""

    @property
    def compares(self) -> bool:
        """Whether near duplicates are looked for."""
        return self.files.near_duplicates != "Ignore"

    @property
    def held_out_below(self) -> int:
        """Files whose `chance` is below it are held out."""
        return int(self.holdout.fraction * 2**64)


class Findings(NamedTuple):
    """What came of a batch."""

    known: Places
    """Of each file, its place among those that an earlier scan judged; -1: it was judged now."""
    judgements: list[Judgement]
    """Of the others, in their order."""


@dataclass
class Worker:
    """Looks at, reads and judges batches; each process has one."""

    task: Task
    known: Known | None = None
    """What need not be judged again."""
    _judge: Judge = field(init=False)
    _repositories: dict[str, BlobReader] = field(default_factory=dict)
    _volumes: dict[str, VolumeReader] = field(default_factory=dict)
    _spill: "_Spill" = field(init=False)

    def __post_init__(self) -> None:
        self._judge = Judge(self.task.files, self.task.holdout)
        self._spill = _Spill(self.task.work, f"{os.getpid()}-{os.urandom(4).hex()}")

    def run(self, source_index: int, batch: Sequence[Found | bytes]) -> Findings:
        """Judge those of a batch of one source that are not known; what is given by its path is looked at first."""
        seen = self._look_at(source_index, batch)
        identities = identify(self.task.sources[source_index], batch, seen)
        places = np.full(len(batch), -1, np.int64) if self.known is None else self.known.find(identities)
        new = [(describe(batch[at], seen[at]), identities[at]) for at in np.flatnonzero(places < 0).tolist()]
        pieces = cut_batches(new, lambda file: file[0].size)
        return Findings(places, [self._judge_piece(source_index, piece) for piece in pieces])

    def _look_at(self, source_index: int, batch: Sequence[Found | bytes]) -> list[Looked]:
        paths = [entry for entry in batch if not isinstance(entry, Found)]
        seen = iter(self._volume(source_index).look_at(paths)) if paths else iter(())
        return [entry if isinstance(entry, Found) else next(seen) for entry in batch]

    def _judge_piece(self, source_index: int, piece: Sequence[tuple[Found, bytes]]) -> Judgement:
        """Judge files, each with its identity."""
        files = [found for found, _ in piece]
        origin = self.task.origins[source_index]
        judged: list[Judged] = []
        texts: list[str] = []
        lasting: list[bytes] = []
        for (found, identity), content in zip(piece, self._contents(source_index, files), strict=True):
            lasting.append(b"" if isinstance(content, str) else identity)
            if isinstance(content, str):
                found, content = found._replace(obstacle=content), None
            file, text = self._judge.judge(origin, found, content)
            judged.append(file)
            texts.append(text)
        return self._describe(source_index, judged, texts, lasting)

    def read(self, source_index: int, batch: Sequence[Found]) -> Iterator[bytes | str]:
        """The contents of files of a source, or why one can't be read."""
        source, keys = self.task.sources[source_index], [found.key for found in batch]
        if source.kind == "archive":
            return read_packed(source.root, keys)
        if source.kind == "upload":
            return (read_content(source.root, key) for key in keys)
        if source.kind == "volume":
            return self._volume(source_index).read(keys, READ_LIMIT_BYTES)
        if source.name not in self._repositories:
            self._repositories[source.name] = BlobReader(source.root, source.environment or {})
        return self._repositories[source.name].read(keys)

    def _volume(self, source_index: int) -> VolumeReader:
        source = self.task.sources[source_index]
        if source.name not in self._volumes:
            self._volumes[source.name] = VolumeReader(source.root)
        return self._volumes[source.name]

    def close(self) -> None:
        """End git's processes, close files."""
        for repository in self._repositories.values():
            repository.close()
        for volume in self._volumes.values():
            volume.close()
        self._spill.close()

    def _contents(self, source_index: int, batch: Sequence[Found]) -> Iterator[bytes | str | None]:
        source = self.task.origins[source_index].name
        wants = [self._judge.wants_content(source, found) for found in batch]
        wanted = [found for found, wants_it in zip(batch, wants, strict=True) if wants_it]
        contents = self.read(source_index, wanted)
        for wants_it in wants:
            yield next(contents) if wants_it else None

    def _describe(
        self, source_index: int, judged: list[Judged], texts: list[str], identities: list[bytes]
    ) -> Judgement:
        records: Any = np.zeros(len(judged), RECORD)
        accepted = [index for index, file in enumerate(judged) if not file.reason]
        chances = [_chance(judged[index]) for index in accepted]
        sides = [
            bool(judged[index].held_out) or chance < self.task.held_out_below
            for index, chance in zip(accepted, chances, strict=True)
        ]
        held_out = dict(zip(accepted, sides, strict=True))
        records["identity"] = identities
        records["source"] = source_index
        records["size"] = [file.size for file in judged]
        records["digest"] = [file.digests.exact for file in judged]
        records["normal"] = [file.digests.normal[:NORMAL_BYTES] for file in judged]
        records["reason"] = [_REASON_NUMBERS[file.reason] for file in judged]
        records["flags"] = [_flags(file, held_out.get(index, False)) for index, file in enumerate(judged)]
        records["chance"][accepted] = chances
        kinds = self._set_kinds(records, judged)
        signatures, prints = self._set_fingerprints(records, accepted, texts)
        rows = [build_row(file, held_out.get(index)) for index, file in enumerate(judged)]
        parts = [part for index in accepted for part in build_line(judged[index], texts[index], held_out[index])]
        sizes = np.array([*map(len, rows)], np.int64)
        records["row_bytes"], records["row_at"] = sizes, self._spill.add_rows(rows) + np.cumsum(sizes) - sizes
        sizes = np.array([*map(len, parts)], np.int64).reshape(-1, 3).sum(axis=1)
        records["line_bytes"][accepted] = sizes
        records["line_at"][accepted] = self._spill.add_lines(parts) + np.cumsum(sizes) - sizes
        return Judgement(records, signatures, prints, kinds, self._spill.rows, self._spill.lines)

    def _set_kinds(self, records: Records, judged: list[Judged]) -> list[Kind]:
        kinds: dict[Kind, int] = {}
        records["kind"] = [
            kinds.setdefault((file.language, extension(file.path.rpartition("/")[2])), len(kinds)) for file in judged
        ]
        return list(kinds)

    def _set_fingerprints(self, records: Records, accepted: list[int], texts: list[str]) -> tuple[Signatures, Prints]:
        records["signature"] = -1
        if not self.task.compares:
            return _NO_SIGNATURES, _NO_PRINTS
        taken = take_fingerprints([cut_header(texts[index].encode()) for index in accepted])
        records["bands"][accepted] = taken.bands
        records["prints"][accepted] = taken.print_counts
        comparable = np.array(accepted, np.int64)[taken.comparable]
        records["signature"][comparable] = np.arange(len(comparable))
        return taken.signatures[taken.comparable], taken.prints


def cut_batches(
    entries: Iterable[_Entry], size_of: Callable[[_Entry], int], most: int = BATCH_FILES
) -> Iterator[list[_Entry]]:
    """Files in batches that are worked on together: of `most` files at most, or of BATCH_BYTES and one file."""
    batch: list[_Entry] = []
    held = 0
    for entry in entries:
        batch.append(entry)
        held += size_of(entry)
        if len(batch) >= most or held >= BATCH_BYTES:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch


class _Spill:
    """The rows and lines that one process wrote, one after the other."""

    def __init__(self, folder: Path, name: str) -> None:
        self.rows, self.lines = folder / f"rows-{name}", folder / f"lines-{name}"
        self._rows = self.rows.open("wb", buffering=0)
        self._lines = self.lines.open("wb", buffering=0)

    def add_rows(self, rows: list[bytes]) -> int:
        """Append; returns where the first one begins."""
        return write_parts(self._rows, rows)

    def add_lines(self, parts: list[bytes]) -> int:
        """Append what lines are made of; returns where the first one begins."""
        return write_parts(self._lines, parts)

    def close(self) -> None:
        """No more is written."""
        self._rows.close()
        self._lines.close()


def _chance(file: Judged) -> int:
    # Of the content alone: a path would tie the split to which of several copies comes first. Hashed once more, since
    # of files that are alike the one with the smallest digest decides: it would be held out more often than others.
    return int.from_bytes(hashlib.sha256(b"\0" + file.digests.normal).digest()[:8])


def _flags(file: Judged, held_out: bool) -> int:
    return (
        WANTED * file.wanted
        | MUST * bool(file.held_out)
        | SELECTED * file.selected
        | (LINE_HELD_OUT | ROW_HELD_OUT) * held_out
    )
