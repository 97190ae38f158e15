"""Tells how far the fetching of a model is, in bytes: weights take minutes, and one file is most of them."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from codetune_trainer.hub import HubFile
from codetune_trainer.reporting import Reporter

SECONDS = 5.0
"""Between two looks at what has come."""
_UNITS = ("bytes", "kB", "MB", "GB", "TB")


@contextmanager
def telling(
    reporter: Reporter, name: str, files: Sequence[HubFile], folder: Path, seconds: float = SECONDS
) -> Iterator[None]:
    """While a model's files come into a folder, say now and then how much of it is there.

    Args:
        reporter: Gets a stage event at the begin and whenever more has come.
        name: The model, as people know it.
        files: All of its files.
        folder: Where they come to, those that are on their way among them.
        seconds: Between two looks.
    """
    total = sum(file.bytes or 0 for file in files)
    done = threading.Event()

    def tell() -> None:
        said = ""
        while True:
            text = f"{name}: {say_part(held_bytes(folder), total)}, {count_whole(folder, files)} of {len(files)} files"
            if text != said:
                reporter.stage("Fetching", text)
                said = text
            if done.wait(seconds):
                return

    thread = threading.Thread(target=tell, name="fetch-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def held_bytes(folder: Path) -> int:
    """What a folder holds; files that go or get their name meanwhile count as far as they are seen."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:
            continue
    return total


def count_whole(folder: Path, files: Sequence[HubFile]) -> int:
    """How many of the files have come whole: each gets its name only then."""
    return sum((folder / file.name).is_file() for file in files)


def say_part(here: int, total: int) -> str:
    """E.g. `3.1 of 14.5 GB (21 %)`; without a total, which not every server tells, only what is here."""
    if total <= 0:
        return _say_bytes(here, _unit_of(here))
    unit = _unit_of(total)
    return f"{_number(here, unit)} of {_say_bytes(total, unit)} ({min(100, 100 * here // total)} %)"


def _unit_of(count: int) -> int:
    """Index of the largest unit of which there is a whole one."""
    return next((index for index in range(len(_UNITS) - 1, 0, -1) if count >= 1000**index), 0)


def _number(count: int, unit: int) -> str:
    return f"{count / 1000**unit:.1f}" if unit else str(count)


def _say_bytes(count: int, unit: int) -> str:
    return f"{_number(count, unit)} {_UNITS[unit]}"
