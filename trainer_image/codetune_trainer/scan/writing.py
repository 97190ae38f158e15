"""Writes a dataset: `files.jsonl`, `report.jsonl` and `manifest.json`, whole or not at all.

The revision is the SHA-256 of `files.jsonl`, so `sha256sum` proves it.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from codetune_api.contracts import DatasetManifest
from codetune_api.digests import FileEntry, canonical
from codetune_api.project import FileCounts, SourceStatus

from codetune_trainer.manifests import describe_file, is_intact, sync_folder
from codetune_trainer.scan.deciding import Decided
from codetune_trainer.scan.records import INCLUDED

FILES, REPORT, MANIFEST = "files.jsonl", "report.jsonl", "manifest.json"
WORK_PREFIX = ".scan-"
"""Folders in the making, beside the datasets."""
_CHUNK = 1 << 20


class Texts:
    """The texts of files that may be accepted, on disk in the order of their paths, so that memory stays flat.

    Args:
        path: The file to write; it holds one text after the other.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO = path.open("wb", buffering=_CHUNK)

    def __enter__(self) -> "Texts":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(self, text: bytes) -> None:
        """Append the next file's text."""
        self._file.write(text)

    def read(self, sizes: Iterable[int]) -> Iterator[bytes]:
        """All texts in their order, given their sizes in bytes."""
        self._file.close()
        with self._path.open("rb", buffering=_CHUNK) as file:
            for size in sizes:
                text = file.read(size)
                if len(text) != size:
                    raise OSError(f"{self._path} is shorter than what was written to it")
                yield text

    def close(self) -> None:
        """Remove the file."""
        self._file.close()
        self._path.unlink(missing_ok=True)


@contextmanager
def work_folder(output: Path) -> Iterator[Path]:
    """A folder beside the datasets for one scan; it goes at the end, and so do those of scans that were killed."""
    output.mkdir(parents=True, exist_ok=True)
    for left in output.glob(f"{WORK_PREFIX}*"):
        shutil.rmtree(left)
    work = output / f"{WORK_PREFIX}{os.urandom(6).hex()}"
    work.mkdir()
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def write_files(work: Path, decided: Sequence[Decided], texts: Texts) -> FileEntry:
    """Write `files.jsonl`: the accepted files, sorted by path, byte for byte the same for the same content."""
    judged = [entry for entry in decided if entry.file.digest]
    contents = texts.read(entry.file.text_bytes for entry in judged)
    digest, size = hashlib.sha256(), 0
    with (work / FILES).open("wb", buffering=_CHUNK) as file:
        for entry, content in zip(judged, contents, strict=True):
            if entry.decision == "rejected":
                continue  # a duplicate: its text was kept until that was known
            row = {
                "path": entry.file.path,
                "type": entry.file.language,
                "sha256": entry.file.digest.hex(),
                "split": entry.decision,
                "text": content.decode(),
            }
            line = canonical(row) + b"\n"
            digest.update(line)
            size += len(line)
            file.write(line)
    return FileEntry(sha256=digest.hexdigest(), bytes=size)


def write_report(work: Path, decided: Iterable[Decided]) -> FileEntry:
    """Write `report.jsonl`: every file that was found, with what became of it and why."""
    with (work / REPORT).open("wb", buffering=_CHUNK) as file:
        for entry in decided:
            found = entry.file
            row = {
                "path": found.path,
                "source": found.source,
                "type": found.language,
                "bytes": found.size,
                "lines": found.lines,
                "decision": entry.decision,
                "reason": found.reason or (INCLUDED if found.overrode else ""),
                "detail": found.detail,
            }
            file.write(json.dumps(row, separators=(",", ":")).encode() + b"\n")
    return describe_file(work / REPORT)


def publish(
    work: Path, output: Path, artifacts: dict[str, FileEntry], sources: list[SourceStatus], counts: FileCounts
) -> tuple[str, Path]:
    """Add the manifest and give the dataset its name.

    A dataset that is there already keeps its `files.jsonl`; its report and manifest become those of this scan.

    Returns:
        The revision and the dataset's folder.
    """
    revision = f"sha256:{artifacts[FILES].sha256}"
    manifest = DatasetManifest(revision=revision, sources=sources, files=counts, artifacts=artifacts)
    (work / MANIFEST).write_text(json.dumps(manifest.to_wire(), indent=1) + "\n")
    sync_folder(work)
    folder = output / artifacts[FILES].sha256
    if is_intact(folder, {FILES: artifacts[FILES]}):
        for name in (REPORT, MANIFEST):
            os.replace(work / name, folder / name)
    else:
        shutil.rmtree(folder, ignore_errors=True)  # half a dataset, or one that somebody changed
        work.rename(folder)
    sync_folder(folder)
    return revision, folder
