"""Answers scrapes, from the start of the process to its end, whether this operator works or stands by."""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector, disable_created_metrics

from codetune_operator.errors import SettingsError
from codetune_operator.handlers.queueing import WorkQueue
from codetune_operator.handlers.storing import Store
from codetune_operator.handlers.waking import RECONCILED
from codetune_operator.metrics.answering import answer
from codetune_operator.metrics.collecting import Snapshot, SnapshotCollector
from codetune_operator.metrics.counting import Counts

_ANSWER_SECONDS = 5.0
"""A loop that does not turn for so long has worse troubles than a scrape that fails."""


class Exposition:
    """What scrapes are answered with; made and told in the event loop."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.counts = Counts(self.registry)
        self._loop = asyncio.get_running_loop()
        self._shown: tuple[Store, WorkQueue, Mapping[str, bool]] | None = None
        self.registry.register(SnapshotCollector(self._take_from_outside))
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)

    def show(self, store: Store, queue: WorkQueue, namespaces: Mapping[str, bool]) -> None:
        """This operator reconciles from now on.

        Args:
            store: Its resources.
            queue: Its work.
            namespaces: The namespaces that it was given by name, and whether it can watch them.
        """
        self._shown = store, queue, namespaces

    def hide(self) -> None:
        """It does not reconcile any more, so what it knows of resources gets old."""
        self._shown = None

    @contextmanager
    def listen(self, url: str | None) -> Iterator[None]:
        """Answer scrapes at this place, if there is one. Raises: SettingsError, where nothing can listen there.

        By threads: a scrape of thousands of resources is put together beside the event loop, and a connection that
        Prometheus keeps open does not hold up the end of kopf.
        """
        if url is None:
            yield
            return
        # When each counter began is of no use to anybody here, and a series for each of them.
        disable_created_metrics()
        with ExitStack() as stack:
            try:
                stack.enter_context(answer(url, self.registry))
            except (OSError, ValueError) as error:
                text = f"Scrapes can't be answered at {url}: {error}. Give another --metrics URL."
                raise SettingsError(text) from error
            yield

    def _take_from_outside(self) -> Snapshot:
        return asyncio.run_coroutine_threadsafe(self._take(), self._loop).result(_ANSWER_SECONDS)

    async def _take(self) -> Snapshot:
        if self._shown is None:
            return Snapshot()
        store, queue, namespaces = self._shown
        return Snapshot(queue.count(), {kind.name: store.everything(kind) for kind in RECONCILED}, namespaces)
