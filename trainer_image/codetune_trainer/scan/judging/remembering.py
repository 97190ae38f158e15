"""What a scan remembers for the next one: the verdict on every file as it was then.

It lies beside what was fetched, in one folder: records, rows, signatures and prints of all files, and the lines of the
accepted ones that other files kept out. All other lines are in the dataset that the scan made. It is worth nothing once
rules change, and its loss costs no more than the time of a full scan.
"""

import hashlib
import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import numpy.typing as npt
from codetune_api.digests import FileEntry, describe_file, digest_value
from pydantic import BaseModel, ValidationError

from codetune_trainer.manifests import is_intact
from codetune_trainer.scan.dataset.deciding import Sides
from codetune_trainer.scan.dataset.ledger import LINE_HELD_OUT, RECORD, Kind, Ledger, Records
from codetune_trainer.scan.dataset.likeness import Signatures, map_signatures
from codetune_trainer.scan.dataset.lines import HELD_OUT_SPLIT, TRAIN_SPLIT
from codetune_trainer.scan.dataset.winnowing import Prints, map_prints
from codetune_trainer.scan.dataset.writing import FILES
from codetune_trainer.scan.judging.identities import Known, Places
from codetune_trainer.scan.judging.worker import Task

CODE = Path(__file__).parents[1]
"""The whole of the scan: a verdict may follow from any of it."""
FOLDER = "verdicts"
META = "meta.json"
"""Written last, with the digests of the others."""
_RECORDS, _ROWS, _LINES, _SIGNATURES, _PRINTS = "records", "rows", "lines", "signatures", "prints"
_LIBRARIES = ("pygments", "identify", "rensa", "numpy", "orjson", "pathspec", "google-re2")
"""Other releases of these may judge otherwise."""
_LINES_OF_DATASET, _LINES_APART, _ROWS_KEPT = 0, 1, 2
"""Numbers of the stores that remembered records lie in."""


def digest_rules(task: Task) -> str:
    """Digest of all that verdicts follow from but the files: the Project's rules and the code that carries them out."""
    code = hashlib.sha256()
    for path in sorted(CODE.rglob("*.py")):
        code.update(path.read_bytes())
    asked = [task.files.model_dump(mode="json", exclude={"quality"}), task.holdout.model_dump(mode="json")]
    origins = [[origin.name, origin.held_out, dict(origin.licences.by_folder)] for origin in task.origins]
    libraries = [version(name) for name in _LIBRARIES]
    return digest_value([asked, origins, libraries, code.hexdigest(), RECORD.descr])


@dataclass
class Memory:
    """What an earlier scan found."""

    records: Records
    kinds: Sequence[Kind]
    stores: Sequence[Path]
    signatures: Signatures
    prints: Prints
    known: Known
    _whole: Callable[[], bool]
    _checking: Future[bool] | None = None

    def check_meanwhile(self) -> None:
        """Begin to read the lines that it points to: they are many. By a thread, so after processes are forked."""
        if self._checking is None:
            thread = ThreadPoolExecutor(1)
            self._checking = thread.submit(self._whole)
            thread.shutdown(wait=False)

    def is_whole(self) -> bool:
        """Whether the lines that it points to are as they were written; takes until that is known."""
        self.check_meanwhile()
        assert self._checking is not None
        return self._checking.result()

    def recall(self, places: Places) -> tuple[Records, Signatures, Prints]:
        """The records of known files, in order, and the signatures and prints that those point to, in order."""
        records = self.records[places]
        compared = records["signature"][records["signature"] >= 0]
        at, counts = records["prints_at"].astype(np.int64), records["prints"].astype(np.int64)
        places_of_prints = np.repeat(at - (np.cumsum(counts) - counts), counts) + np.arange(counts.sum())
        return records, np.asarray(self.signatures[compared]), np.asarray(self.prints[places_of_prints])


def read_dataset(folder: Path) -> str | None:
    """Name of the dataset's folder that what was saved here stands on."""
    try:
        return _Meta.model_validate_json((folder / META).read_bytes()).dataset
    except (OSError, ValidationError):
        return None


def load_memory(folder: Path, datasets: Path, rules: str) -> Memory | None:
    """What the last scan remembered; None when there is nothing, or it was by other rules, or its dataset is gone.

    Args:
        folder: Where it was saved.
        datasets: Folder of the Project's datasets.
        rules: Digest of everything but the files that verdicts follow from.
    """
    try:
        meta = _Meta.model_validate_json((folder / META).read_bytes())
    except (OSError, ValidationError):
        return None
    lines = datasets / meta.dataset / FILES
    if meta.rules != rules or not lines.is_file() or not is_intact(folder, meta.files):
        return None
    records = np.fromfile(folder / _RECORDS, RECORD)
    if not len(records):
        return None
    stores = [lines, folder / _LINES, folder / _ROWS]
    signatures, prints = map_signatures(folder / _SIGNATURES), map_prints(folder / _PRINTS)
    known = Known.of(records["identity"])
    return Memory(records, meta.kinds, stores, signatures, prints, known, partial(is_intact, lines.parent, meta.lines))


def save_memory(folder: Path, ledger: Ledger, sides: Sides, dataset: Path, lines: FileEntry, rules: str) -> None:
    """Remember a scan in place of the one before it.

    Args:
        folder: Where to save it.
        ledger: What was found; its records are used up.
        sides: Where each file went.
        dataset: Folder of the dataset that was made.
        lines: Its `files.jsonl`.
        rules: As for `load_memory`.
    """
    for left in folder.parent.glob(f"{folder.name}-*"):
        shutil.rmtree(left, ignore_errors=True)  # by a scan that was killed
    work = folder.with_name(f"{folder.name}-{os.urandom(6).hex()}")
    work.mkdir(parents=True)
    try:
        _save_rows(work, ledger)
        _save_lines(work, ledger, sides)
        # As they are: they have the signatures and prints of just these records.
        shutil.move(ledger.signatures, work / _SIGNATURES)
        shutil.move(ledger.prints, work / _PRINTS)
        ledger.records.tofile(work / _RECORDS)
        files = {name: describe_file(work / name) for name in (_RECORDS, _ROWS, _LINES, _SIGNATURES, _PRINTS)}
        meta = _Meta(rules=rules, dataset=dataset.name, lines={FILES: lines}, files=files, kinds=ledger.kinds)
        (work / META).write_text(meta.model_dump_json())
        _replace_folder(folder, work)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _replace_folder(folder: Path, work: Path) -> None:
    # This scan still has the old files open: NFS keeps such ones, and the folder they are in, until they are closed.
    old = folder.with_name(f"{folder.name}-{os.urandom(6).hex()}")
    if folder.exists():
        folder.rename(old)
    work.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


class _Meta(BaseModel):
    """`meta.json`."""

    rules: str
    dataset: str
    """Name of the dataset's folder."""
    lines: dict[str, FileEntry]
    """Its lines."""
    files: dict[str, FileEntry]
    """What lies beside this file."""
    kinds: list[Kind]


def _save_rows(work: Path, ledger: Ledger) -> None:
    records = ledger.records
    everything = np.arange(len(records))
    with (work / _ROWS).open("wb") as file:
        for _, piece in ledger.splice("row", everything, np.zeros(len(records), np.bool_)):
            file.write(piece)
    records["rows"], records["row_at"] = _ROWS_KEPT, _starts(records["row_bytes"])


def _save_lines(work: Path, ledger: Ledger, sides: Sides) -> None:
    """Say where in the dataset the lines are; keep those that are not in it."""
    records = ledger.records
    apart = np.flatnonzero((records["line_bytes"] > 0) & ~sides.kept)
    with (work / _LINES).open("wb") as file:
        for _, piece in ledger.splice("line", apart, np.zeros(len(apart), np.bool_)):
            file.write(piece)
    records["lines"] = _LINES_OF_DATASET
    records["lines"][apart], records["line_at"][apart] = _LINES_APART, _starts(records["line_bytes"][apart])
    taken = np.flatnonzero(sides.kept)
    held_out = sides.held_out[taken]
    said = ledger.has(LINE_HELD_OUT)[taken]
    change = (len(HELD_OUT_SPLIT) - len(TRAIN_SPLIT)) * (held_out.astype(np.int64) - said.astype(np.int64))
    sizes = (records["line_bytes"][taken].astype(np.int64) + change).astype(np.uint64)
    records["line_at"][taken], records["line_bytes"][taken] = _starts(sizes), sizes
    records["flags"][taken] = (records["flags"][taken] & ~np.uint8(LINE_HELD_OUT)) | (LINE_HELD_OUT * held_out)


def _starts(sizes: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Where pieces of these sizes begin, one after the other."""
    starts = np.zeros(len(sizes), np.uint64)
    np.cumsum(sizes[:-1], out=starts[1:])
    return starts
