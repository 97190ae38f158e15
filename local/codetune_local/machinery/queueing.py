"""A work queue of keys: each key at most once, later when asked, and with growing delays after errors."""

import asyncio
from collections.abc import Hashable
from typing import Generic, TypeVar

Item = TypeVar("Item", bound=Hashable)

FIRST_RETRY = 0.05
"""Seconds before a key that failed once is tried again; doubles with each failure."""
MAX_RETRY = 30.0
"""Seconds."""


class WorkQueue(Generic[Item]):
    """Keys to look at. A key that is added while it is worked on comes again afterwards."""

    def __init__(self) -> None:
        self._ready: asyncio.Queue[Item] = asyncio.Queue()
        self._queued: set[Item] = set()
        self._timers: dict[Item, asyncio.TimerHandle] = {}
        self._failures: dict[Item, int] = {}

    def add(self, item: Item) -> None:
        """Look at it as soon as possible."""
        if item not in self._queued:
            self._queued.add(item)
            self._ready.put_nowait(item)

    def add_later(self, item: Item, seconds: float) -> None:
        """Look at it after a while; an earlier date that was set before stays."""
        loop = asyncio.get_running_loop()
        due = loop.time() + max(0.0, seconds)
        timer = self._timers.get(item)
        if timer is not None:
            if timer.when() <= due:
                return
            timer.cancel()
        self._timers[item] = loop.call_at(due, self._fire, item)

    def _fire(self, item: Item) -> None:
        self._timers.pop(item, None)
        self.add(item)

    def retry(self, item: Item) -> float:
        """Look at it again after a failure; returns the delay in seconds."""
        failures = self._failures.get(item, 0)
        self._failures[item] = failures + 1
        delay = min(MAX_RETRY, FIRST_RETRY * 2.0 ** min(failures, 20))
        self.add_later(item, delay)
        return delay

    def forget_failures(self, item: Item) -> None:
        """The item went well."""
        self._failures.pop(item, None)

    async def get(self) -> Item:
        """The next key."""
        item = await self._ready.get()
        self._queued.discard(item)
        return item

    def close(self) -> None:
        """Drop all timers."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
