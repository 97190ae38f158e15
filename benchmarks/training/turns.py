"""Programs that train in turns on one machine: all but one are stopped, so that each has it alone, round by round.

Starting a program and loading its model is paid once for all rounds, and a machine whose speed changes slowly is the
same for all candidates of a round.
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

Count = Callable[[str], int | None]
"""Tokens that a program has trained on, out of a line that it prints; None where the line says nothing of them."""


@dataclass
class Turns:
    """One program, and what it did in its turns.

    Args:
        line: The command.
        environment: Settings besides this process's own.
        count: Reads its progress.
    """

    line: Sequence[str]
    environment: dict[str, str]
    count: Count
    output: str = ""
    speeds: list[float] = field(default_factory=list)
    """Tokens per second, by turn."""
    tokens: int = 0
    peak_bytes: int = 0

    def start(self) -> None:
        """Start it, let it make its first step, which is slower than any other, and stop it there."""
        settings = {**os.environ, "PYTHONUNBUFFERED": "1", **self.environment}
        self._process = subprocess.Popen(
            self.line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=settings
        )
        self._advance(1)
        self._process.send_signal(signal.SIGSTOP)

    def take(self, tokens: int) -> None:
        """Let it train on at least so many tokens more, to the end of a step. Raises: RuntimeError."""
        before, began = self.tokens, time.monotonic()
        self._process.send_signal(signal.SIGCONT)
        self._advance(tokens)
        self.speeds.append((self.tokens - before) / (time.monotonic() - began))
        self._process.send_signal(signal.SIGSTOP)

    def finish(self) -> None:
        """Let it come to its end. Raises: RuntimeError."""
        assert self._process.stdout is not None
        self._process.send_signal(signal.SIGCONT)
        for text in self._process.stdout:
            self._note(text)
        _, status, usage = os.wait4(self._process.pid, 0)
        self._process.returncode = status
        if status:
            raise RuntimeError(f"{' '.join(self.line)} failed:\n{self.output[-3000:]}")
        self.peak_bytes = usage.ru_maxrss * 1024

    def kill(self) -> None:
        """End it if it was started and has not ended: a program that is stopped would stay for ever."""
        process = getattr(self, "_process", None)
        if process is not None and process.returncode is None:
            process.kill()
            process.wait()

    def _advance(self, tokens: int) -> None:
        assert self._process.stdout is not None
        until = self.tokens + tokens
        while self.tokens < until:
            if not (text := self._process.stdout.readline()):
                raise RuntimeError(f"{' '.join(self.line)} ended early:\n{self.output[-3000:]}")
            self._note(text)

    def _note(self, text: str) -> None:
        self.output += text
        self.tokens = self.count(text) or self.tokens


def take_turns(found: Sequence[Turns], rounds: int, tokens: int) -> None:
    """Start all, give each its turn in every round, and let all come to their end. Raises: RuntimeError."""
    try:
        for program in found:
            program.start()
        for _ in range(rounds):
            for program in found:
                program.take(tokens)
        for program in found:
            program.finish()
    finally:
        for program in found:
            program.kill()
