"""What `kubectl logs` gets from a log file, whole, in part and while it grows."""

import asyncio
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from codetune_local.kubelet.containerlogs import LogOptions, read_container_log
from codetune_local.kubelet.shim import LogFile


def write(path: Path, *lines: str, start: int = 0) -> None:
    """Lines at 12:00:00, 12:00:01 …; a trailing `+` marks a part of a longer line."""
    with path.open("a") as file:
        for second, line in enumerate(lines, start):
            tag, text = ("P", line[:-1]) if line.endswith("+") else ("F", line)
            file.write(f"2026-05-01T12:00:{second:02d}.000000000Z stdout {tag} {text}\n")


async def read(path: Path, options: LogOptions = LogOptions(), running: bool = False) -> str:  # noqa: B008  # frozen
    pieces = [piece async for piece in read_container_log(path, options, lambda: running)]
    return b"".join(pieces).decode()


@pytest.mark.parametrize(
    ("expected", "options"),
    [
        pytest.param("a\nb\nlong line\nd\n", LogOptions(), id="all"),
        pytest.param("long line\nd\n", LogOptions(tail_lines=2), id="tail counts whole lines"),
        pytest.param("", LogOptions(tail_lines=0), id="tail of nothing"),
        pytest.param("a\nb\nlong line\nd\n", LogOptions(tail_lines=99), id="tail of more than there is"),
        pytest.param("long line\nd\n", LogOptions(since=datetime(2026, 5, 1, 12, 0, 2, tzinfo=UTC)), id="since"),
        pytest.param("a\nb", LogOptions(limit_bytes=3), id="limit"),
    ],
)
async def test_a_log_is_read_in_part(tmp_path: Path, expected: str, options: LogOptions) -> None:
    write(tmp_path / "log", "a", "b", "long +", "line", "d")
    assert await read(tmp_path / "log", options) == expected


async def test_timestamps_stand_before_each_line_but_not_inside_one(tmp_path: Path) -> None:
    write(tmp_path / "log", "a", "long +", "line")
    text = await read(tmp_path / "log", LogOptions(timestamps=True))
    assert text == "2026-05-01T12:00:00.000000000Z a\n2026-05-01T12:00:01.000000000Z long line\n"


@pytest.mark.parametrize(
    ("expected", "options"),
    [
        pytest.param("a\nb\nc\nd\n", LogOptions(), id="all"),
        pytest.param("b\nc\nd\n", LogOptions(tail_lines=3), id="tail over both files"),
        pytest.param("d\n", LogOptions(tail_lines=1), id="tail of the new one"),
    ],
)
async def test_a_log_that_was_turned_over_is_read_from_both_files(
    tmp_path: Path, expected: str, options: LogOptions
) -> None:
    write(tmp_path / "log.1", "a", "b")
    write(tmp_path / "log", "c", "d", start=2)
    assert await read(tmp_path / "log", options) == expected


async def test_following_shows_what_comes_also_after_turning_over_and_ends_with_the_container(tmp_path: Path) -> None:
    path, alive = tmp_path / "log", [True]
    write(path, "a")
    got: list[str] = []

    async def follow() -> None:
        async for piece in read_container_log(path, LogOptions(follow=True), lambda: alive[0]):
            got.append(piece.decode())

    async def until(text: str) -> None:
        while "".join(got) != text:
            await asyncio.sleep(0.01)

    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        reader = group.create_task(follow())
        await until("a\n")
        write(path, "b", start=1)
        await until("a\nb\n")
        write(path, "c", start=2)
        os.replace(path, tmp_path / "log.1")
        write(path, "d", start=3)
        await until("a\nb\nc\nd\n")
        write(path, "e", start=4)
        alive[0] = False
        await reader
    assert "".join(got) == "a\nb\nc\nd\ne\n"


async def test_what_a_shim_writes_is_what_a_reader_gets(tmp_path: Path) -> None:
    log = LogFile(str(tmp_path / "log"), max_bytes=1 << 20)
    log.write("stdout", b"one\ntw")
    log.write("stderr", b"error\n")
    log.write("stdout", b"o\n" + b"x" * 40_000 + b"\nend")
    log.close()
    assert await read(tmp_path / "log") == "one\nerror\ntwo\n" + "x" * 40_000 + "\nend"


def test_a_full_log_is_turned_over(tmp_path: Path) -> None:
    log = LogFile(str(tmp_path / "log"), max_bytes=200)
    for number in range(10):
        log.write("stdout", f"line {number}\n".encode())
    log.close()
    assert (tmp_path / "log").stat().st_size <= 200
    assert (tmp_path / "log.1").read_text().splitlines()[-1] < (tmp_path / "log").read_text().splitlines()[0]
