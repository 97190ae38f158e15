"""Keeps what a run prints in `train.log` too: the pod's own log is gone with the pod."""

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import TextIOBase
from pathlib import Path
from typing import TextIO


class _Tee(TextIOBase):
    def __init__(self, first: TextIO, second: TextIO) -> None:
        self._streams = (first, second)

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        for stream in self._streams:
            stream.write(text)
        return len(text)

    def flush(self) -> None:
        for stream in self._streams:
            stream.flush()


@contextmanager
def keeping_log(path: Path) -> Iterator[None]:
    """Append to a file whatever is printed inside, and why it ended if it failed."""
    with (
        path.open("a", encoding="utf-8", errors="backslashreplace") as file,
        redirect_stdout(_Tee(sys.stdout, file)),
        redirect_stderr(_Tee(sys.stderr, file)),
    ):
        try:
            yield
        except Exception:
            traceback.print_exc(file=file)
            raise
