"""What a person sees: messages and a progress bar on stderr, results on stdout."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
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

    @property
    def is_terminal(self) -> bool:
        """Whether a person sees the result at once."""
        return sys.stdout.isatty()

    def result(self, text: str) -> None:
        """A line of the result."""
        print(text, file=sys.stdout)

    def flush(self) -> None:
        """Have the result seen as far as it is."""
        sys.stdout.flush()

    def redraw(self, text: str) -> None:
        """A result that takes the place of the one before it, on a terminal."""
        Console(file=sys.stdout).clear()
        self.result(text)
        self.flush()

    @contextmanager
    def writing(self, *, ends_line: bool = False) -> Iterator[Callable[[str], None]]:
        """Gives a function that writes a result piece by piece, each seen at once: to a file as it is, on a terminal
        with nothing in it that steers it. The line is ended on a terminal, or where it is asked for."""
        is_terminal, last, held = self.is_terminal, "", ""

        def write(piece: str) -> None:
            nonlocal last, held
            if is_terminal:  # a line break may be of two characters, of which each may come alone
                text = (held + piece).replace("\r\n", "\n")
                held = text[len(text.removesuffix("\r")) :]
                piece = printable(text.removesuffix("\r"), "\n\t")
            sys.stdout.write(piece)
            sys.stdout.flush()
            last = piece[-1:] or last

        try:
            yield write
        finally:
            if held:
                sys.stdout.write(printable(held))
            if last != "\n" and (ends_line or (is_terminal and last)):
                self.result("")

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


def printable(text: str, kept: str = "\n") -> str:
    """The text with everything escaped that could steer a terminal: file names come from anybody.

    Args:
        text: What is to be shown.
        kept: What is left as it is all the same.
    """
    return "".join(
        char if char.isprintable() or char in kept else char.encode("unicode_escape").decode() for char in text
    )


def say_bytes(size: float) -> str:
    """`812 B`, `3.4 kB`, `1.2 GB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < _STEP or unit == "GB":
            break
        size /= _STEP
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
