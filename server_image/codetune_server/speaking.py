"""Last words: the exception that ended an engine, where Kubernetes finds it after the container.

vLLM logs the cause in the process where it happened; what the container prints last is only that something failed
there, so the tail of the log doesn't tell. vLLM calls `listen` in each of its processes: it is an entry point of the
group `vllm.general_plugins`.
"""

import logging
import os
import traceback
from collections.abc import Mapping
from pathlib import Path

from codetune_api.contracts import ENV_TERMINATION_LOG

MAX_BYTES = 2048
"""Kubernetes keeps 4096 bytes of a termination message."""
_LOGGER = "vllm"
_ENGINE = "vllm.v1."
"""Loggers of engines and workers; a request that goes wrong is logged elsewhere and ends nobody."""
_REFERRING = ("see root cause above", "see stack trace", "for root cause", "enginedeaderror")
"""What a process says that only passes on that another one failed."""


class LastWords(logging.Handler):
    """Writes the exception of each fatal record to the termination log; the newest stays."""

    def __init__(self, path: Path) -> None:
        super().__init__(level=logging.ERROR)
        self._path = path

    def emit(self, record: logging.LogRecord) -> None:
        """Take one record."""
        error = record.exc_info[1] if record.exc_info else None
        if error is None or not record.name.startswith(_ENGINE):
            return
        words = "".join(traceback.format_exception_only(error)).strip()
        if any(sign in words.lower() for sign in _REFERRING):
            return
        try:
            self._path.write_bytes(words.encode()[:MAX_BYTES])
        except OSError:
            self.handleError(record)


def listen(environment: Mapping[str, str] = os.environ) -> None:
    """Begin to write last words in this process, once, where there is a place for them."""
    logger, path = logging.getLogger(_LOGGER), environment.get(ENV_TERMINATION_LOG)
    if path and not any(isinstance(handler, LastWords) for handler in logger.handlers):
        logger.addHandler(LastWords(Path(path)))
