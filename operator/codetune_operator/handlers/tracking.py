"""Keeps reading the logs that plans ask for, and folds them into one report for each run.

The attempts of a run are read one after the other, so that its report tells them in their order.
"""

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from codetune_api.protocol import Event, parse

from codetune_operator.cluster.connecting import Cluster
from codetune_operator.cluster.following import read_log
from codetune_operator.errors import MissingError, OperatorError, TemporaryError
from codetune_operator.handlers.keys import Key
from codetune_operator.reconcile.plan import Follow
from codetune_operator.runs.report import RunReport, fold

logger = logging.getLogger(__name__)

_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 30.0
_ATTEMPTS = 6
"""How often the log of a container that has ended is asked for before it counts as lost."""

_Line = tuple[str, Event]


@dataclass
class _Run:
    """One run whose logs are read."""

    key: Key
    report: RunReport
    wanted: tuple[Follow, ...] = ()
    done: set[tuple[str, str]] = field(default_factory=set)
    """Pod and container whose log was read to its end, or is lost."""
    failures: dict[tuple[str, str], int] = field(default_factory=dict)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    stopped: threading.Event = field(default_factory=threading.Event)
    task: asyncio.Task[None] | None = None


class LogTracker:
    """The logs of all runs; used from the event loop only."""

    def __init__(self, cluster: Cluster, wake: Callable[[Key], None]) -> None:
        self._cluster, self._wake = cluster, wake
        self._runs: dict[str, _Run] = {}

    def report(self, slot: str) -> RunReport | None:
        """What a run has said so far; None when nothing was ever read for it."""
        run = self._runs.get(slot)
        return run.report if run is not None else None

    def read_logs(self, slot: str) -> frozenset[tuple[str, str]]:
        """Pod and container of every log of a run that was read to its end, or is lost."""
        run = self._runs.get(slot)
        return frozenset(run.done) if run is not None else frozenset()

    def update(self, key: Key, slot: str, follows: tuple[Follow, ...], base: RunReport) -> None:
        """Read these logs of a run from now on.

        Args:
            key: The resource that is woken when something was read.
            slot: What makes it another run, with a report of its own.
            follows: Its logs, in the order in which they were written.
            base: What is known of a run that was not read before.
        """
        run = self._runs.get(slot)
        if run is None:
            if not follows:
                return
            run = self._runs[slot] = _Run(key, base)
        if run.wanted == follows:
            return
        run.wanted = follows
        run.changed.set()
        if run.task is None:
            run.task = asyncio.get_running_loop().create_task(self._follow(run), name=f"logs of {key}")

    def forget(self, key: Key, *, keep: str | None = None) -> None:
        """Stop reading for a resource, all but one run of it."""
        for slot in [slot for slot, run in self._runs.items() if run.key == key and slot != keep]:
            run = self._runs.pop(slot)
            run.stopped.set()
            if run.task is not None:
                run.task.cancel()

    async def close(self) -> None:
        """Stop reading."""
        tasks = [run.task for run in self._runs.values() if run.task is not None]
        for key in {run.key for run in self._runs.values()}:
            self.forget(key)
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _follow(self, run: _Run) -> None:
        while True:
            run.changed.clear()
            todo = [follow for follow in run.wanted if (follow.pod, follow.container) not in run.done]
            if not todo:
                await run.changed.wait()
                continue
            pause = _PAUSE_SECONDS
            for follow in todo:
                # Only the latest is waited for: an older one that does not end is on a node that is lost.
                live = follow is todo[-1] and not follow.finished
                pause = max(pause, await self._read(run, follow, live=live))
            if not run.changed.is_set():
                await _wait(run.changed, pause)

    async def _read(self, run: _Run, follow: Follow, *, live: bool) -> float:
        """Read one log as far as it goes. Returns: seconds to wait before it is read again."""
        place = (follow.pod, follow.container)
        try:
            await self._fold_lines(run, follow, live=live)
        except MissingError:
            run.done.add(place)
        except OperatorError as error:
            failures = run.failures[place] = run.failures.get(place, 0) + 1
            if follow.finished and failures >= _ATTEMPTS:
                logger.warning("%s: the log of %s is given up: %s", run.key, follow.pod, error)
                run.done.add(place)
            else:
                logger.debug("%s: log of %s: %s", run.key, follow.pod, error)
                return min(_LONGEST_PAUSE_SECONDS, 2.0**failures)
        else:
            run.failures.pop(place, None)
            if follow.finished:
                run.done.add(place)
        if place in run.done:
            self._wake(run.key)
        return 0.0

    async def _fold_lines(self, run: _Run, follow: Follow, *, live: bool) -> None:
        lines: asyncio.Queue[_Line | OperatorError | None] = asyncio.Queue()
        since = run.report.read_to or follow.since
        reader = _Reader(self._cluster, run.key.namespace, follow, since, live, run.stopped)
        loop = asyncio.get_running_loop()

        def hand_over(line: _Line | OperatorError | None) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended: nobody waits for lines any more
                loop.call_soon_threadsafe(lines.put_nowait, line)

        threading.Thread(target=reader.read, args=(hand_over,), name=f"log of {follow.pod}", daemon=True).start()
        while (line := await lines.get()) is not None:
            if isinstance(line, OperatorError):
                raise line
            time, event = line
            report = fold(run.report, event, time)
            if report != run.report:
                run.report = report
                self._wake(run.key)


@dataclass(frozen=True)
class _Reader:
    """Reads one log in a thread of its own, and hands over what counts."""

    cluster: Cluster
    namespace: str
    follow: Follow
    since: str | None
    live: bool
    stopped: threading.Event

    def read(self, hand_over: Callable[[_Line | OperatorError | None], None]) -> None:
        """Hand over each protocol line, then None at the end or the error that broke it off."""
        try:
            for time, text in read_log(
                self.cluster,
                namespace=self.namespace,
                pod=self.follow.pod,
                container=self.follow.container,
                since=self.since,
                follow=self.live,
            ):
                if self.stopped.is_set():
                    return
                event = parse(text, self.follow.nonce)
                if event is not None:
                    hand_over((time, event))
        except OperatorError as error:
            hand_over(error)
        except Exception as error:  # whatever it is: who waits for lines would wait for ever if it were not told
            hand_over(TemporaryError(f"The log can't be read: {type(error).__name__}: {error}"))
        else:
            hand_over(None)


async def _wait(event: asyncio.Event, seconds: float) -> None:
    """Until the event, but no longer than this."""
    waiter = asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait({waiter}, timeout=seconds)
    finally:
        waiter.cancel()
