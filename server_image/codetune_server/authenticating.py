"""API keys of clients: asked for on every route but health, compared in constant time, renewed without a restart."""

import hashlib
import hmac
import logging
import os
from pathlib import Path

logger = logging.getLogger(__name__)

MAX_FILE_BYTES = 1 << 20
"""A Secret's own limit."""
Signature = str | tuple[tuple[str, int, int, int], ...]
"""What tells whether the files have changed."""


class ApiKeys:
    """The keys of a mounted Secret: every line of every file in a folder is one; read again when a file changes."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._signature: Signature | None = None
        self._digests: tuple[tuple[bytes, str], ...] = ()

    @property
    def are_asked_for(self) -> bool:
        """Whether requests need a key."""
        return self._folder is not None

    def count(self) -> int | None:
        """How many keys are valid now; None where none is asked for."""
        return len(self._read()) if self.are_asked_for else None

    def admit(self, authorization: str, api_key: str = "") -> bool:
        """Whether one of the keys was given; where none can be read, nobody is admitted. Arguments: as `identify`."""
        return self.identify(authorization, api_key) is not None

    def identify(self, authorization: str, api_key: str = "") -> str | None:
        """The name of the first file that has the key that was given; None where no file has it.

        Args:
            authorization: The header of that name.
            api_key: The header `X-Api-Key`, which counts only where the other one is not there.
        """
        scheme, _, given = authorization.partition(" ") if authorization else ("bearer", "", api_key)
        digest = hashlib.sha256(given.strip().encode()).digest()
        found: str | None = None
        for known, name in self._read():  # all of them, so that the time tells nothing
            is_same = hmac.compare_digest(digest, known)
            found = name if is_same and found is None else found
        return found if scheme.lower() == "bearer" else None

    def _read(self) -> tuple[tuple[bytes, str], ...]:
        if self._folder is None:
            return ()
        try:
            signature = _sign(self._folder)
            if signature != self._signature:
                self._digests, self._signature = _digest_keys(self._folder), signature
                logger.info("%d API keys are valid from now on", len(self._digests))
        except OSError as error:
            logger.error("the API keys can't be read, nobody is admitted: %s", error)
            self._digests, self._signature = (), None
        return self._digests


def _sign(folder: Path) -> Signature:
    """Raises: OSError."""
    try:
        # Kubernetes keeps the files in `..2026_…` and swaps the link `..data`: one look at it is enough.
        return os.readlink(f"{folder}/..data")
    except FileNotFoundError:
        found = [(name, os.stat(folder / name)) for name in _names(folder)]
        return tuple((name, stat.st_ino, stat.st_mtime_ns, stat.st_size) for name, stat in found)


def _names(folder: Path) -> list[str]:
    return sorted(name for name in os.listdir(folder) if not name.startswith(".."))


def _digest_keys(folder: Path) -> tuple[tuple[bytes, str], ...]:
    """SHA-256 of every key, and its file's name. Raises: OSError."""
    return tuple((hashlib.sha256(key).digest(), name) for name in _names(folder) for key in _read_file(folder / name))


def read_keys(folder: Path) -> list[bytes]:
    """Every key of a mounted Secret, files by name. Raises: OSError."""
    return [key for name in _names(folder) for key in _read_file(folder / name)]


def _read_file(path: Path) -> list[bytes]:
    """Raises: OSError."""
    with path.open("rb") as file:
        lines = file.read(MAX_FILE_BYTES).splitlines()
    return [line.strip() for line in lines if line.strip()]
