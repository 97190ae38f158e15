"""API keys of clients: asked for on every route but health, compared in constant time, renewed without a restart."""

import hashlib
import hmac
import logging
import os
from pathlib import Path

logger = logging.getLogger(__name__)

MAX_FILE_BYTES = 1 << 20
"""A Secret's own limit."""
Signature = tuple[tuple[str, int, int, int], ...]


class ApiKeys:
    """The keys of a mounted Secret: every line of every file in a folder is one; read again when a file changes."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._signature: Signature | None = None
        self._digests: tuple[bytes, ...] = ()

    @property
    def are_asked_for(self) -> bool:
        """Whether requests need a key."""
        return self._folder is not None

    def count(self) -> int | None:
        """How many keys are valid now; None where none is asked for."""
        return len(self._read()) if self.are_asked_for else None

    def admit(self, authorization: str) -> bool:
        """Whether an Authorization header carries one of the keys; where none can be read, nobody is admitted."""
        scheme, _, given = authorization.partition(" ")
        digest = hashlib.sha256(given.strip().encode()).digest()
        found = False
        for known in self._read():  # all of them, so that the time tells nothing
            found |= hmac.compare_digest(digest, known)
        return found and scheme.lower() == "bearer"

    def _read(self) -> tuple[bytes, ...]:
        if self._folder is None:
            return ()
        try:
            files, signature = _look(self._folder)
            if signature != self._signature:
                self._digests, self._signature = _digest_keys(files), signature
                logger.info("%d API keys are valid from now on", len(self._digests))
        except OSError as error:
            logger.error("the API keys can't be read, nobody is admitted: %s", error)
            self._digests, self._signature = (), None
        return self._digests


def _look(folder: Path) -> tuple[list[Path], Signature]:
    """The files of a mounted Secret, and what tells whether they have changed. Raises: OSError."""
    # Kubernetes keeps the files in `..2026_…` and the link `..data`, and swaps that link.
    names = sorted(name for name in os.listdir(folder) if not name.startswith(".."))
    found = [(name, os.stat(folder / name)) for name in names]
    signature = tuple((name, stat.st_ino, stat.st_mtime_ns, stat.st_size) for name, stat in found)
    return [folder / name for name in names], signature


def _digest_keys(files: list[Path]) -> tuple[bytes, ...]:
    """SHA-256 of every key. Raises: OSError."""
    lines: list[bytes] = []
    for path in files:
        with path.open("rb") as file:
            lines += file.read(MAX_FILE_BYTES).splitlines()
    return tuple(hashlib.sha256(line.strip()).digest() for line in lines if line.strip())
