"""Speaks the line protocol on stdout: the only way in which a run tells the operator anything."""

import sys
import threading
from typing import TextIO

from codetune_api.protocol import Event, StageEvent, render


class Reporter:
    """Writes protocol lines that carry the run's nonce.

    Args:
        nonce: From the run's configuration.
        stream: Where to write; stdout when None.
    """

    def __init__(self, nonce: str, stream: TextIO | None = None) -> None:
        self._nonce = nonce
        self._stream = stream
        self._lock = threading.Lock()

    def emit(self, event: Event) -> None:
        """Write one event at once, as a line of its own."""
        line = render(event, self._nonce)
        with self._lock:
            # stdout is looked up late: tests and torchrun replace it.
            print(line, file=self._stream or sys.stdout, flush=True)

    def stage(self, stage: str, message: str = "") -> None:
        """Say that the run began something else."""
        self.emit(StageEvent(stage=stage, message=message))


class Silence(Reporter):
    """For processes of a run that leave speaking to another one."""

    def __init__(self) -> None:
        super().__init__(nonce="")

    def emit(self, event: Event) -> None:
        """Nothing."""
