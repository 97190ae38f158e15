"""Files that arrive piece by piece: each begins where the last one ended, and the whole must have its digest."""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from codetune_store.errors import DigestMismatch, OffsetMismatch, TooLarge

_CHUNK = 1 << 20


def append_piece(path: Path, offset: int, piece: bytes, size: int) -> int:
    """Add a piece to the end of a file, which is made when it is not there.

    Args:
        path: The file in the making.
        offset: Where the sender believes that the file ends.
        piece: The next bytes.
        size: How many bytes the whole file will have.

    Returns:
        How many bytes are there now.

    Raises:
        OffsetMismatch: The file ends elsewhere.
        TooLarge: The file would become larger than it may.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640)
    try:
        there = os.fstat(descriptor).st_size
        if offset != there:
            raise OffsetMismatch(f"The next piece begins at byte {there}, not at byte {offset}.", offset=there)
        if there + len(piece) > size:
            raise TooLarge(f"The file has {size} bytes; this piece would make it {there + len(piece)}.")
        os.lseek(descriptor, there, os.SEEK_SET)
        # What is cut off here by a kill or a full disk is a shorter beginning of the same file: nothing is lost.
        view = memoryview(piece)
        while view:
            view = view[os.write(descriptor, view) :]
    finally:
        os.close(descriptor)
    return there + len(piece)


def settle(path: Path, sha256: str, target: Path) -> None:
    """Give a file that is whole its place, if it has its digest; otherwise it goes.

    Raises:
        DigestMismatch: Its bytes are not what they should be.
    """
    found = digest_of(path)
    if found != sha256:
        path.unlink(missing_ok=True)
        raise DigestMismatch(
            f"The bytes that came have the SHA-256 {found}, not {sha256}. Send them again from byte 0."
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(path, target)


def digest_of(path: Path) -> str:
    """Hex SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def size_of(path: Path) -> int | None:
    """Bytes of a plain file; None when there is none."""
    try:
        return path.lstat().st_size if path.is_file() and not path.is_symlink() else None
    except FileNotFoundError:
        return None


def sync(path: Path) -> None:
    """Force a file or folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_whole(path: Path, content: Iterable[bytes]) -> None:
    """Write a file that is seen whole or not at all, and that survives the end of the machine."""
    beside = path.with_name(f".{path.name}.{os.urandom(6).hex()}")
    try:
        with beside.open("xb") as file:
            file.writelines(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    sync(path.parent)
