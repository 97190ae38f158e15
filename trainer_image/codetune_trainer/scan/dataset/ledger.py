"""What a scan keeps of every file: a fixed number of bytes in memory, rows and texts on disk.

A file's record says where its row of the report and its line of the dataset lie. Both are written by the process that
judged it, as they stand if no other file has a say in it; only what other files change is written anew at the end.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from codetune_trainer.scan.dataset.likeness import BANDS, Signatures, map_signatures
from codetune_trainer.scan.dataset.winnowing import Prints

DIGEST_BYTES = 32
NORMAL_BYTES = 16
"""Of a digest by which files are told to be the same: nobody finds two texts with the same so many bytes of SHA-256."""
RECORD = np.dtype(
    [
        ("identity", "S16"),  # of the file as it was found; empty: not to be remembered
        ("digest", f"S{DIGEST_BYTES}"),  # SHA-256 of its text; of accepted files only (numpy hides zeros at its end)
        ("normal", f"S{NORMAL_BYTES}"),  # the first bytes of its normal digest: files that have the same are one unit
        ("chance", "u8"),  # uniform; below the share of the held-out files when it is held out
        ("bands", "u4", (BANDS,)),
        ("signature", "i8"),  # place in the file of signatures; -1: it is not compared
        ("prints_at", "u8"),  # place of its first one in the file of prints
        ("prints", "u4"),  # how many it has
        ("size", "u8"),
        ("row_at", "u8"),
        ("row_bytes", "u4"),
        ("line_at", "u8"),
        ("line_bytes", "u4"),
        ("rows", "u2"),  # the file that its row is in
        ("lines", "u2"),  # the file that its line is in
        ("source", "u2"),
        ("kind", "u4"),
        ("reason", "u1"),
        ("flags", "u1"),
    ]
)
WANTED, MUST, SELECTED, LINE_HELD_OUT, ROW_HELD_OUT = 1, 2, 4, 8, 16
"""Flags: named by `files.include`; asked to be held out; of a selected type; what its line and its row say."""
_MOST_KINDS = 20_000
OTHER = "…"
"""Stands for the extensions of further kinds."""

Records = npt.NDArray[np.void]
Kind = tuple[str, str]
"""Language and extension."""


class Judgement(NamedTuple):
    """The records of some files, as the process that judged them hands them on."""

    records: Records
    signatures: Signatures
    prints: Prints
    """Of all records, in their order."""
    kinds: list[Kind]
    """What the records' `kind` counts in."""
    rows: Path
    lines: Path


@dataclass
class Ledger:
    """The records of a whole scan, in the order of the files' paths."""

    records: Records
    kinds: list[Kind]
    stores: list[Path]
    signatures: Path
    prints: Path
    """Those of a record behind those of another one, with no gap."""
    _open: dict[Path, int] = field(default_factory=dict)
    _mapped: Signatures | None = None

    def __len__(self) -> int:
        return len(self.records)

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def has(self, flag: int) -> npt.NDArray[np.bool_]:
        """Which files have a flag."""
        found: npt.NDArray[np.bool_] = (self.records["flags"] & flag) != 0
        return found

    def row(self, index: int) -> bytes:
        """A file's row of the report, as its own name and content have it."""
        record = self.records[index]
        return self.read(self.stores[record["rows"]], int(record["row_at"]), int(record["row_bytes"]))

    def line(self, index: int) -> bytes:
        """A file's line of the dataset."""
        record = self.records[index]
        return self.read(self.stores[record["lines"]], int(record["line_at"]), int(record["line_bytes"]))

    def signatures_of(self, indices: Sequence[int]) -> Signatures:
        """The signatures of files, of shape [indices, PERMUTATIONS]."""
        if self._mapped is None:
            self._mapped = np.asarray(map_signatures(self.signatures))  # a plain array: looked into faster
        return np.asarray(self._mapped[self.records["signature"][indices]])

    def prints_from(self, first: int, count: int) -> Prints:
        """So many prints from the file of all."""
        return np.fromfile(self.prints, np.uint32, count, offset=first * np.dtype(np.uint32).itemsize)

    def read(self, store: Path, at: int, size: int) -> bytes:
        """A piece of a file. Raises: OSError when it is not there."""
        if store not in self._open:
            self._open[store] = os.open(store, os.O_RDONLY | os.O_CLOEXEC)
        found = os.pread(self._open[store], size, at)
        if len(found) != size:
            raise OSError(f"{store} is shorter than what was written to it")
        return found

    def close(self) -> None:
        """Close its files."""
        for descriptor in self._open.values():
            os.close(descriptor)
        self._open.clear()
        self._mapped = None

    def splice(
        self, what: str, chosen: npt.NDArray[np.int64], changed: npt.NDArray[np.bool_]
    ) -> Iterator[tuple[int, bytes]]:
        """Rows or lines in order, as few reads as their places allow.

        Args:
            what: `row` or `line`.
            chosen: Which files.
            changed: Of each chosen one, whether it must come by itself.

        Yields:
            The index of a file that must come by itself, else -1; and what was read.
        """
        if not len(chosen):
            return
        store, at = self.records[f"{what}s"][chosen], self.records[f"{what}_at"][chosen]
        size = self.records[f"{what}_bytes"][chosen].astype(np.uint64)
        apart = (store[1:] != store[:-1]) | (at[1:] != at[:-1] + size[:-1]) | changed[1:] | changed[:-1]
        starts = np.concatenate([[0], np.flatnonzero(apart) + 1])
        totals = np.add.reduceat(size, starts)
        for start, total in zip(starts.tolist(), totals.tolist(), strict=True):
            path, place = self.stores[store[start]], int(at[start])
            if changed[start]:
                yield int(chosen[start]), self.read(path, place, total)
                continue
            for piece in range(0, total, _PIECE):
                yield -1, self.read(path, place + piece, min(_PIECE, total - piece))


_PIECE = 1 << 20


class Bookkeeper:
    """Collects judgements, in whatever order they come, into one ledger.

    Args:
        signatures: The file that signatures are written to.
        prints: The file that prints are written to.
    """

    def __init__(self, signatures: Path, prints: Path) -> None:
        self._records: Records = np.zeros(0, RECORD)
        self._kinds: dict[Kind, int] = {}
        self._stores: dict[Path, int] = {}
        self._signatures, self._prints = signatures, prints
        self._files = signatures.open("wb"), prints.open("wb")
        self._signatures_written = self._prints_written = 0

    def __enter__(self) -> "Bookkeeper":
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def add(self, positions: npt.NDArray[np.int64], found: Judgement) -> None:
        """Take a judgement in.

        Args:
            positions: Each record's place among all files.
            found: The judgement; its records become the ledger's.
        """
        records = found.records
        numbers = np.array([self._number(kind) for kind in found.kinds] or [0], np.uint32)
        records["kind"] = numbers[records["kind"]]
        records["rows"] = self._stores.setdefault(found.rows, len(self._stores))
        records["lines"] = self._stores.setdefault(found.lines, len(self._stores))
        self._place(positions, records, found.signatures, found.prints)

    def add_remembered(
        self,
        positions: npt.NDArray[np.int64],
        records: Records,
        signatures: Signatures,
        prints: Prints,
        stores: Sequence[Path],
        kinds: Sequence[Kind],
    ) -> None:
        """Take in records of an earlier scan, whose stores and kinds are numbered as in these lists."""
        numbers = np.array([self._number(kind) for kind in kinds] or [0], np.uint32)
        places = np.array([self._stores.setdefault(store, len(self._stores)) for store in stores] or [0], np.uint16)
        records["kind"] = numbers[records["kind"]]
        records["rows"], records["lines"] = places[records["rows"]], places[records["lines"]]
        self._place(positions, records, signatures, prints)

    def finish(self, total: int) -> Ledger:
        """The ledger of so many files."""
        self._close()
        self._make_room(total)
        records, self._records = self._records[:total], np.zeros(0, RECORD)
        return Ledger(records, list(self._kinds), list(self._stores), self._signatures, self._prints)

    def _close(self) -> None:
        for file in self._files:
            file.close()

    def _place(
        self, positions: npt.NDArray[np.int64], records: Records, signatures: Signatures, prints: Prints
    ) -> None:
        compared = records["signature"] >= 0
        records["signature"][compared] = self._signatures_written + np.arange(len(signatures))
        ends = np.cumsum(records["prints"], dtype=np.uint64)
        records["prints_at"] = np.uint64(self._prints_written) + ends - records["prints"]
        for file, made in zip(self._files, (signatures.tobytes(), prints.tobytes()), strict=True):
            file.write(made)
        self._signatures_written += len(signatures)
        self._prints_written += len(prints)
        if len(positions):
            last = int(positions[-1]) + 1
            if last > len(self._records):
                self._make_room(max(last, len(self._records) * 5 // 4))
            self._records[positions] = records

    def _make_room(self, files: int) -> None:
        # In place: the kernel moves large arrays by their pages, so that none is held twice.
        self._records.resize(max(files, len(self._records)), refcheck=False)

    def _number(self, kind: Kind) -> int:
        if kind not in self._kinds and len(self._kinds) >= _MOST_KINDS:
            kind = (kind[0], OTHER)
        return self._kinds.setdefault(kind, len(self._kinds))
