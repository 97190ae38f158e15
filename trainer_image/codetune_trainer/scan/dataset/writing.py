"""Writes a dataset: `files.jsonl`, `report.jsonl` and `manifest.json`, whole or not at all.

The revision is the SHA-256 of `files.jsonl`, so `sha256sum` proves it.
"""

import hashlib
import json
import os
import shutil
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import orjson
from codetune_api.contracts import DatasetManifest
from codetune_api.digests import FileEntry
from codetune_api.project import FileCounts, SourceStatus

from codetune_trainer.manifests import sync_folder, write_all
from codetune_trainer.scan.dataset.deciding import Contained, Copies, Original, Sides
from codetune_trainer.scan.dataset.ledger import LINE_HELD_OUT, ROW_HELD_OUT, Ledger
from codetune_trainer.scan.dataset.lines import (
    CHOSEN,
    HELD_OUT_SPLIT,
    TRAIN_SPLIT,
    find_redacted,
    join_details,
    strip_chosen,
)
from codetune_trainer.scan.dataset.summing import path_of
from codetune_trainer.scan.records import HELD_OUT, INCLUDED, REASONS

FILES, REPORT, MANIFEST = "files.jsonl", "report.jsonl", "manifest.json"
DATASET, SPILL = "dataset", "spill"
"""Folders of a scan: what is made, and what does not stay."""
WORK_PREFIX = ".scan-"
"""Folders in the making, beside the datasets."""
_WRITTEN_TOGETHER = 256 * 2**10
"""Bytes that are worth a call and another thread's attention."""
_HASHED_BEHIND = 16
"""Pieces that may wait to be hashed."""
_SYNCED_TOGETHER = 32 * 2**20
"""Bytes after which the disk is set to work."""


class DigestedFile:
    """A new file that is digested and forced to the disk while it is written, each by a thread of its own.

    Args:
        path: The file to write.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb", buffering=0)
        self._digest = hashlib.sha256()
        self._size = 0
        self._pieces: list[bytes] = []
        self._held = 0
        self._hasher, self._syncer = ThreadPoolExecutor(1), ThreadPoolExecutor(1)
        self._waiting: deque[Future[None]] = deque()
        self._synced: Future[None] | None = None

    def __enter__(self) -> "DigestedFile":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._flush()
        finally:
            self._hasher.shutdown()
            self._syncer.shutdown()
            self._file.close()

    def write(self, piece: bytes) -> None:
        """Append. Raises: OSError."""
        self._pieces.append(piece)
        self._held += len(piece)
        if self._held >= _WRITTEN_TOGETHER:
            self._flush()

    def _flush(self) -> None:
        piece = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces, self._held = [], 0
        self._waiting.append(self._hasher.submit(self._digest.update, piece))
        if len(self._waiting) > _HASHED_BEHIND:
            self._waiting.popleft().result()
        before, self._size = self._size, self._size + len(piece)
        write_all(self._file, piece)
        if before // _SYNCED_TOGETHER != self._size // _SYNCED_TOGETHER and (not self._synced or self._synced.done()):
            # Only so that the disk has begun when all must be on it: what fails here, fails again there.
            self._synced = self._syncer.submit(os.fdatasync, self._file.fileno())

    @property
    def entry(self) -> FileEntry:
        """Digest and size, once all is written."""
        return FileEntry(sha256=self._digest.hexdigest(), bytes=self._size)


@contextmanager
def work_folder(output: Path) -> Iterator[Path]:
    """A folder beside the datasets for one scan; it goes at the end, and so do those of scans that were killed."""
    output.mkdir(parents=True, exist_ok=True)
    for left in output.glob(f"{WORK_PREFIX}*"):
        shutil.rmtree(left)
    work = output / f"{WORK_PREFIX}{os.urandom(6).hex()}"
    for name in (DATASET, SPILL):
        (work / name).mkdir(parents=True)
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def write_artifacts(work: Path, ledger: Ledger, copies: Copies, sides: Sides) -> dict[str, FileEntry]:
    """Write `files.jsonl` and `report.jsonl`, both at once: one takes the disk, the other the processor."""
    with ThreadPoolExecutor(2) as pool:
        files = pool.submit(_write_files, work, ledger, sides)
        report = pool.submit(_write_report, work, ledger, copies, sides)
        return {FILES: files.result(), REPORT: report.result()}


def _write_files(work: Path, ledger: Ledger, sides: Sides) -> FileEntry:
    """Write `files.jsonl`: the accepted files, sorted by path, byte for byte the same for the same content."""
    chosen = np.flatnonzero(sides.kept)
    changed = ledger.has(LINE_HELD_OUT)[chosen] != sides.held_out[chosen]
    with DigestedFile(work / FILES) as file:
        for index, piece in ledger.splice("line", chosen, changed):
            file.write(piece if index < 0 else _turn(piece, held_out=bool(sides.held_out[index])))
    return file.entry


def _turn(line: bytes, *, held_out: bool) -> bytes:
    """A line that says the other side."""
    if held_out:
        return line.replace(TRAIN_SPLIT, HELD_OUT_SPLIT, 1)
    return line.replace(HELD_OUT_SPLIT, TRAIN_SPLIT, 1)


def _write_report(work: Path, ledger: Ledger, copies: Copies, sides: Sides) -> FileEntry:
    """Write `report.jsonl`: every file that was found, with what became of it and why."""
    everything = np.arange(len(ledger))
    changed = copies.reasons != ledger.records["reason"]
    changed |= sides.kept & (ledger.has(ROW_HELD_OUT) != sides.held_out)
    changed[[*copies.originals, *copies.low_quality, *copies.contained]] = True
    with DigestedFile(work / REPORT) as file:
        for index, piece in ledger.splice("row", everything, changed):
            file.write(piece if index < 0 else _revise(piece, index, ledger, copies, sides))
    return file.entry


def _revise(row: bytes, index: int, ledger: Ledger, copies: Copies, sides: Sides) -> bytes:
    """A row of the report with what other files mean for it."""
    told = orjson.loads(row)
    told["decision"] = "rejected" if not sides.kept[index] else "holdout" if sides.held_out[index] else "train"
    reason = REASONS[copies.reasons[index]]
    seen = _find_seen(index, ledger, copies)
    if reason in seen:
        told |= {"reason": reason, "detail": seen[reason]}
    elif seen:
        told |= {"reason": INCLUDED, "detail": _tell_overridden(told["reason"], told["detail"], seen)}
    elif sides.held_out[index] and told["reason"] not in {HELD_OUT, INCLUDED}:
        told |= {
            "reason": HELD_OUT,
            "detail": join_details(_tell_decider(index, ledger, copies, sides), told["detail"]),
        }
    elif told["reason"] == HELD_OUT and not sides.held_out[index]:
        told |= {"reason": "", "detail": strip_chosen(told["detail"])}
    return orjson.dumps(told, option=orjson.OPT_APPEND_NEWLINE)


def _find_seen(index: int, ledger: Ledger, copies: Copies) -> dict[str, str]:
    """The rules over all files that hold of a file, and what each saw."""
    seen: dict[str, str] = {}
    if index in copies.originals:
        original = copies.originals[index]
        seen[original.reason] = _describe(original, index, ledger)
    if index in copies.low_quality:
        seen["LowQuality"] = copies.low_quality[index]
    if index in copies.contained:
        seen["ContainsHeldOut"] = _describe_contained(copies.contained[index], ledger)
    return seen


def _tell_overridden(reason: str, detail: str, seen: Mapping[str, str]) -> str:
    """Every rule that `files.include` overrode: those of the file's own first, which its row tells already."""
    rules = "; ".join(f"{rule}: {what}" for rule, what in seen.items())
    if reason == INCLUDED:
        return f"{detail}; {rules}"
    return join_details(f"files.include has it, against {rules}", find_redacted(detail))


def _tell_decider(index: int, ledger: Ledger, copies: Copies, sides: Sides) -> str:
    """Why a file is held out that nothing about itself asks for."""
    other = sides.decided_by[index]
    if other == index:
        return f"{CHOSEN}, so that something is held out"
    copied = "a copy of" if copies.units[other] == copies.units[index] else "like"
    return f"{copied} {path_of(ledger, other)}, which is to be held out"


def _describe(original: Original, index: int, ledger: Ledger) -> str:
    path, digests = path_of(ledger, original.index), ledger.records["digest"]
    if original.reason == "NearDuplicate":
        return f"{original.share:.0%} like {path}"
    return f"of {path}" + (", but for line ends" if digests[index] != digests[original.index] else "")


def _describe_contained(contained: Contained, ledger: Ledger) -> str:
    more = f" and of {contained.others} more" if contained.others else ""
    return f"{contained.share:.0%} of {path_of(ledger, contained.index)}{more}, held out"


def publish(
    work: Path, output: Path, artifacts: dict[str, FileEntry], sources: list[SourceStatus], counts: FileCounts
) -> tuple[str, Path]:
    """Add the manifest and give the dataset its name.

    Where that dataset is already, its files are replaced one by one: what lists the same files has the same lines.

    Returns:
        The revision and the dataset's folder.
    """
    revision = f"sha256:{artifacts[FILES].sha256}"
    manifest = DatasetManifest(revision=revision, sources=sources, files=counts, artifacts=artifacts)
    (work / MANIFEST).write_text(json.dumps(manifest.to_wire(), indent=1) + "\n")
    sync_folder(work)
    folder = output / artifacts[FILES].sha256
    if folder.is_dir():
        for name in (FILES, REPORT, MANIFEST):
            os.replace(work / name, folder / name)
    else:
        work.rename(folder)
    sync_folder(folder)
    return revision, folder
