"""The work queue: which resource is looked at when. One at a time for each, several at once over all.

A failed look is repeated with growing pauses; a look that something chatty asked for (a log) keeps its distance.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from codetune_operator.errors import ConflictError, OperatorError
from codetune_operator.handlers.keys import Key

logger = logging.getLogger(__name__)

GENTLE_SECONDS = 1.0
"""Shortest time between two looks that only a log asked for."""
CONFLICT_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 300.0
CONCURRENCY = 16

Look = Callable[[Key], Awaitable[float | None]]
"""Reconciles a resource; returns the seconds after which to look again, or None."""


class Timer(Protocol):
    """What `call_later` returns."""

    def cancel(self) -> None:
        """Never call."""

    def when(self) -> float:
        """The loop's time of the call."""


@dataclass
class _Entry:
    timer: Timer | None = None
    """The next look."""
    running: asyncio.Task[None] | None = None
    working: bool = False
    """Whether the look that runs has got its turn."""
    again: bool = False
    """Somebody asked while a look was under way."""
    started: float = float("-inf")
    failures: int = 0
    gone: bool = False
    """Forgotten while a look was under way."""


@dataclass(frozen=True)
class QueueCounts:
    """How much there is to do."""

    waiting: int
    """Looks that are due, but for which too many others are under way."""
    working: int
    """Looks that are under way."""
    retrying: int
    """Resources whose last look failed."""


class WorkQueue:
    """Looks at resources; used from the event loop only."""

    def __init__(
        self, look: Look, *, clock: Callable[[], float] | None = None, jitter: Callable[[], float] = random.random
    ) -> None:
        loop = asyncio.get_running_loop()
        self._look, self._jitter = look, jitter
        self._clock = clock or loop.time
        self._call_later = loop.call_later
        self._entries: dict[Key, _Entry] = {}
        self._slots = asyncio.Semaphore(CONCURRENCY)
        self._closed = False

    def enqueue(self, key: Key, *, after: float = 0.0, gentle: bool = False) -> None:
        """Look at a resource, at the latest in `after` seconds; an earlier look that is planned counts too.

        Args:
            key: The resource.
            after: Seconds from now.
            gentle: Not before the last look is `GENTLE_SECONDS` ago.
        """
        if self._closed:
            return
        entry = self._entries.setdefault(key, _Entry())
        entry.gone = False
        if entry.running is not None and after <= 0 and not gentle:
            entry.again = True
            return
        now = self._clock()
        due = now + max(after, 0.0)
        if gentle:
            due = max(due, entry.started + GENTLE_SECONDS)
        if entry.timer is not None:
            if entry.timer.when() <= due:
                return
            entry.timer.cancel()
        entry.timer = self._call_later(max(0.0, due - now), self._start, key)

    def forget(self, key: Key) -> None:
        """The resource is gone: no planned look, no count of failures."""
        entry = self._entries.get(key)
        if entry is None:
            return
        if entry.timer is not None:
            entry.timer.cancel()
            entry.timer = None
        entry.failures, entry.gone = 0, True
        if entry.running is None:
            del self._entries[key]

    def count(self) -> QueueCounts:
        """How much there is to do now."""
        entries = self._entries.values()
        working = sum(1 for entry in entries if entry.working)
        waiting = sum(1 for entry in entries if entry.running is not None) - working
        return QueueCounts(waiting, working, sum(1 for entry in entries if entry.failures))

    async def close(self) -> None:
        """Plan nothing more and wait for the looks that are under way; one that somebody cancelled is over too."""
        self._closed = True
        running = []
        for entry in self._entries.values():
            if entry.timer is not None:
                entry.timer.cancel()
                entry.timer = None
            if entry.running is not None:
                running.append(entry.running)
        await asyncio.gather(*running, return_exceptions=True)

    def _start(self, key: Key) -> None:
        entry = self._entries[key]
        entry.timer = None
        if entry.running is not None:
            entry.again = True
            return
        entry.started = self._clock()
        entry.running = asyncio.get_running_loop().create_task(self._run(key, entry), name=str(key))

    async def _run(self, key: Key, entry: _Entry) -> None:
        async with self._slots:
            entry.working = True
            after = await self._try(key, entry)
            entry.working = False
        entry.running = None
        if entry.again:
            entry.again = False
            self.enqueue(key)
        elif after is not None:
            self.enqueue(key, after=after)
        elif entry.gone and entry.timer is None:
            self._entries.pop(key, None)

    async def _try(self, key: Key, entry: _Entry) -> float | None:
        """One look. Whatever goes wrong in it concerns this resource only and is tried again."""
        try:
            after = await self._look(key)
        except ConflictError:
            return CONFLICT_SECONDS * (1 + self._jitter())
        except OperatorError as error:
            return self._pause(key, entry, str(error), None)
        except Exception as error:
            return self._pause(key, entry, f"{type(error).__name__}: {error}", error)
        entry.failures = 0
        return after

    def _pause(self, key: Key, entry: _Entry, message: str, trace: Exception | None) -> float:
        seconds = min(LONGEST_PAUSE_SECONDS, 2.0**entry.failures) * (0.5 + self._jitter() / 2)
        entry.failures += 1
        logger.warning("%s: %s; next try in %.0f s", key, message, seconds, exc_info=trace)
        return seconds
