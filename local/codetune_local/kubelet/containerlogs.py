"""Reading a container's log file the way `kubectl logs` asks for it."""

import asyncio
import mmap
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from codetune_local.machinery.times import parse_time

FOLLOW_SECONDS = 0.1
"""How often a followed log is looked at."""
_CHUNK_BYTES = 256 * 1024


@dataclass(frozen=True)
class LogOptions:
    """What `kubectl logs` can ask for."""

    follow: bool = False
    since: datetime | None = None
    timestamps: bool = False
    tail_lines: int | None = None
    limit_bytes: int | None = None


async def read_container_log(path: Path, options: LogOptions, is_running: Callable[[], bool]) -> AsyncIterator[bytes]:
    """The log's text in pieces; with `follow`, until the container has ended and all is read."""
    budget = options.limit_bytes
    formatter = _Formatter(options)
    async for block in _read_blocks(path, options, is_running):
        text = formatter.format(block)
        if budget is not None:
            text, budget = text[:budget], budget - len(text)
        if text:
            yield text
        if budget is not None and budget <= 0:
            return


async def _read_blocks(path: Path, options: LogOptions, is_running: Callable[[], bool]) -> AsyncIterator[bytes]:
    """Whole lines: the turned-over file first, then the current one, then what comes."""
    previous = path.with_name(path.name + ".1")
    skip_lines = options.tail_lines
    if skip_lines is not None and path.exists():
        there = _count_lines(path)
        offset = _tail_offset(path, skip_lines)
        before = skip_lines - there
        if before > 0 and previous.exists():
            async for block in _from(previous, _tail_offset(previous, before)):
                yield block
    else:
        offset = 0
        if previous.exists():
            async for block in _from(previous, 0):
                yield block
    async for block in _follow_file(path, offset, options.follow, is_running):
        yield block


async def _from(path: Path, offset: int) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        file.seek(offset)
        for block in _Lines(file):
            yield block
            await asyncio.sleep(0)


async def _follow_file(path: Path, offset: int, follow: bool, is_running: Callable[[], bool]) -> AsyncIterator[bytes]:
    while not path.exists():
        if not follow or not is_running():
            return
        await asyncio.sleep(FOLLOW_SECONDS)
    file = path.open("rb")
    file.seek(offset)
    try:
        while True:
            running = follow and is_running()  # asked before reading: what is written until its end is then seen
            turned_over = follow and not _is_same_file(file, path)
            for block in _Lines(file):
                yield block
                await asyncio.sleep(0)
            if turned_over:
                file.close()
                file = path.open("rb")
            elif not running:
                return
            else:
                await asyncio.sleep(FOLLOW_SECONDS)
    finally:
        file.close()


def _is_same_file(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return True  # between the two steps of turning over


class _Lines:
    """Blocks of whole lines from where the file stands; a line still being written stays for the next time."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> bytes:
        block = self._file.read(_CHUNK_BYTES)
        end = block.rfind(b"\n") + 1
        if end < len(block):
            self._file.seek(end - len(block), os.SEEK_CUR)
        if not end:
            raise StopIteration
        return block[:end]


def _count_lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(_count_full(block) for block in _Lines(file))


def _count_full(block: bytes) -> int:
    return sum(_tag(line) == b"F" for line in block.splitlines())


def _tag(line: bytes) -> bytes:
    return line.split(b" ", 3)[2] if line.count(b" ") >= 3 else b"F"


def _tail_offset(path: Path, lines: int) -> int:
    """Where the last `lines` whole lines begin."""
    if lines <= 0 or path.stat().st_size == 0:
        return path.stat().st_size
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        end = len(text)
        found = 0
        while end > 0:
            start = text.rfind(b"\n", 0, end - 1) + 1
            if _tag(text[start : min(end, start + 64)]) == b"F":
                found += 1
                if found > lines:  # this one is the last of those that are not wanted
                    return end
            end = start
    return 0


class _Formatter:
    """CRI lines → what the client sees."""

    def __init__(self, options: LogOptions) -> None:
        self._timestamps = options.timestamps
        self._since = options.since
        self._inside_line = False

    def format(self, block: bytes) -> bytes:
        """Text of whole CRI lines, filtered by time."""
        return b"".join(self._format_line(line) for line in block.split(b"\n")[:-1])

    def _format_line(self, line: bytes) -> bytes:
        stamp, _, rest = line.partition(b" ")
        _, _, rest = rest.partition(b" ")
        tag, _, text = rest.partition(b" ")
        if self._since is not None:
            if parse_time(stamp.decode("ascii", "replace")) < self._since:
                return b""
            self._since = None  # times only rise
        prefix = stamp + b" " if self._timestamps and not self._inside_line else b""
        self._inside_line = tag == b"P"
        return prefix + text + (b"" if tag == b"P" else b"\n")
