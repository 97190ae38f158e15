"""Removes what downloads of base models left in the store that nobody goes on with any more."""

import fcntl
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ABANDONED_SECONDS = 7 * 86_400
"""A download that nobody wrote to for so long is of a run that was given up, or of a commit that nobody asks for."""


def partial_folder(folder: Path) -> Path:
    """Where a model's files come to, beside the folder that it will be."""
    return folder.with_name(f".{folder.name}.partial")


@contextmanager
def locked(parent: Path) -> Iterator[None]:
    """One download of a model at a time; the lock goes with its process."""
    parent.mkdir(parents=True, exist_ok=True)
    with (parent / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def remove_abandoned(models: Path, keep: Path, now: float | None = None) -> list[Path]:
    """Remove the half-done downloads that are old; those of a model that is being downloaded stay.

    Args:
        models: The folder of all models in the store, by organisation and name.
        keep: The download that is about to go on.
        now: Seconds since 1970.

    Returns:
        What was removed.
    """
    oldest = (time.time() if now is None else now) - ABANDONED_SECONDS
    return [
        partial
        for partial in sorted(models.glob("*/*/.*.partial"))
        if partial != keep and not partial.is_symlink() and _remove(partial, oldest)
    ]


def _remove(partial: Path, oldest: float) -> bool:
    with (partial.parent / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False  # a download goes on
        # Only now: whoever held the lock may have gone on with it.
        if not partial.is_dir() or _last_written(partial) > oldest:
            return False
        shutil.rmtree(partial)
        return True


def _last_written(folder: Path) -> float:
    return max(path.lstat().st_mtime for path in (folder, *folder.rglob("*")))
