"""What the store keeps of one link: the pack of the current archive and of the one before, and half a download.

One process works on a shelf at a time. Everything appears by being renamed, so that a process that is killed in the
middle, or a full disk, leaves the last whole archive as it was.
"""

import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from codetune_api.project import Source

from codetune_trainer.manifests import sync_folder
from codetune_trainer.scan.archive.pack import read_about
from codetune_trainer.scan.archive.validators import Validators

_PREFIX = "archive-"
_PACK = ".pack"
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Current:
    """The archive that the last good fetch brought."""

    sha256: str
    validators: Validators
    previous: str = ""
    """SHA-256 of the archive before it: a scan that began earlier may still read it."""


@dataclass(frozen=True)
class Shelf:
    """The folder of one link."""

    folder: Path

    @classmethod
    def of(cls, cache: Path, url: str) -> "Shelf":
        """By URL, not by source: one archive in two sources is fetched once."""
        return cls(cache / f"{_PREFIX}{hashlib.sha256(url.encode()).hexdigest()[:24]}")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One fetch at a time; the lock goes with its process."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._lock.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            self.folder.mkdir(exist_ok=True)  # removed while we waited, by a scan of an older spec
            for left in self.folder.glob(f".*{_PACK}.*"):
                left.unlink()
            yield

    def pack(self, sha256: str) -> Path:
        """Where the pack of an archive is or will be."""
        return self.folder / f"{sha256}{_PACK}"

    def has(self, sha256: str) -> bool:
        """Whether the pack of an archive is here, whole."""
        return read_about(self.pack(sha256)) is not None

    def current(self) -> Current | None:
        """What the last good fetch brought; None when there was none, or when its pack is not whole."""
        found = self._load()
        return found if found is not None and self.has(found.sha256) else None

    def settle(self, sha256: str, validators: Validators) -> None:
        """Make an archive whose pack is here the current one."""
        last = self._load()
        previous = "" if last is None else last.previous if last.sha256 == sha256 else last.sha256
        beside = self._notes.with_suffix(".new")
        beside.write_text(json.dumps(asdict(Current(sha256, validators, previous))))
        sync_folder(self.folder)
        beside.replace(self._notes)

    def prune(self, pinned: Iterable[str]) -> None:
        """Remove packs that nobody needs; where another process works, it is left to the next time.

        Args:
            pinned: Digests that sources ask for by name.
        """
        if not self.folder.is_dir():
            return
        with self._lock.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            last = self._load()
            kept = {*pinned, *((last.sha256, last.previous) if last is not None else ())}
            for pack in self.folder.glob(f"*{_PACK}"):
                if pack.stem not in kept:
                    pack.unlink()

    @property
    def _lock(self) -> Path:
        return self.folder.with_suffix(".lock")

    @property
    def _notes(self) -> Path:
        return self.folder / "current.json"

    def _load(self) -> Current | None:
        try:
            read = json.loads(self._notes.read_bytes())
            found = Current(read["sha256"], Validators(**read["validators"]), read["previous"])
        except (FileNotFoundError, ValueError, TypeError, KeyError):
            return None  # none yet, or one of another version: the archive is fetched anew
        return found if _SHA256.fullmatch(found.sha256) else None


def hash_file(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def prune_archives(sources: list[Source], cache: Path) -> None:
    """Remove what was fetched for links and digests that the Project no longer has.

    Args:
        sources: As in spec.
        cache: Folder in the store for what is fetched.
    """
    pinned: dict[Path, set[str]] = {}
    for source in sources:
        if source.archive is not None:
            wanted = pinned.setdefault(Shelf.of(cache, source.archive.url).folder, set())
            wanted |= {source.archive.sha256} if source.archive.sha256 else set()
    for path in sorted(cache.glob(f"{_PREFIX}*")):
        folder = path.with_suffix("")
        if folder in pinned:
            Shelf(folder).prune(pinned[folder])
        elif path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            os.unlink(path)
