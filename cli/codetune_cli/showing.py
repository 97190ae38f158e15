"""What a person sees: messages and a progress bar on stderr, results on stdout."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

_EXAMPLES = 3
_STEP = 1000


@dataclass
class Screen:
    """The terminal, or a file when there is none."""

    console: Console = field(default_factory=lambda: Console(stderr=True, soft_wrap=True, highlight=False))

    def say(self, text: str) -> None:
        """A message, with nothing in it that a terminal would take for an order."""
        self.console.print(printable(text), markup=False)

    def result(self, text: str) -> None:
        """A line of the result."""
        print(text, file=sys.stdout)

    @contextmanager
    def progress(self, text: str, total: int) -> Iterator["Meter"]:
        """A bar of bytes, for as long as the context lasts; nothing where there is no terminal."""
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        bar = Progress(
            *columns, TimeRemainingColumn(), console=self.console, disable=not self.console.is_terminal, transient=True
        )
        with bar:
            yield Meter(bar, bar.add_task(text, total=max(total, 1)))

    def left_out(self, left_out: Mapping[str, Sequence[str]]) -> None:
        """What an upload leaves out, and a few of them."""
        for why, paths in left_out.items():
            more = ", …" if len(paths) > _EXAMPLES else ""
            self.say(f"Left out {len(paths)} {why}: {', '.join(paths[:_EXAMPLES])}{more}")


@dataclass(frozen=True)
class Meter:
    """A bar that is shown."""

    bar: Progress
    task: TaskID

    def advance(self, size: int) -> None:
        """So many bytes more."""
        self.bar.advance(self.task, size)

    def set_total(self, total: int) -> None:
        """So many bytes in all."""
        self.bar.update(self.task, total=max(total, 1))


def printable(text: str) -> str:
    """The text with everything escaped that could steer a terminal: file names come from anybody."""
    return "".join(
        char if char.isprintable() or char == "\n" else char.encode("unicode_escape").decode() for char in text
    )


def say_bytes(size: float) -> str:
    """`812 B`, `3.4 kB`, `1.2 GB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < _STEP or unit == "GB":
            break
        size /= _STEP
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
