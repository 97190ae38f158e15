"""The operator as a whole: its parts, put together, started and stopped."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from codetune_operator.cluster.connecting import Cluster
from codetune_operator.cluster.eventing import EventRecorder
from codetune_operator.cluster.keys import load_operator_key
from codetune_operator.cluster.kinds import DEPLOYMENT
from codetune_operator.errors import TemporaryError
from codetune_operator.handlers.asking import ServingReports
from codetune_operator.handlers.executing import Executor
from codetune_operator.handlers.keys import Key
from codetune_operator.handlers.observing import Observer
from codetune_operator.handlers.queueing import WorkQueue
from codetune_operator.handlers.reconciling import Reconciler
from codetune_operator.handlers.resyncing import Resync
from codetune_operator.handlers.storing import Store
from codetune_operator.handlers.tracking import LogTracker
from codetune_operator.handlers.waking import RECONCILED
from codetune_operator.handlers.watching import Watcher
from codetune_operator.metrics.exposing import Exposition
from codetune_operator.settings import Settings

logger = logging.getLogger(__name__)

_LONGEST_PAUSE_SECONDS = 30.0

T = TypeVar("T")


@dataclass
class Runtime:
    """Everything that runs."""

    queue: WorkQueue
    logs: LogTracker
    watcher: Watcher
    resync: Resync
    resyncing: asyncio.Task[None]
    exposition: Exposition

    async def stop(self) -> None:
        """Finish the looks that are under way and stop reading logs; the cluster remembers the rest."""
        self.exposition.hide()
        self.resyncing.cancel()
        await self.queue.close()
        await self.logs.close()


async def start(cluster: Cluster, settings: Settings, exposition: Exposition) -> Runtime:
    """Load the key, fill the store, and look at every resource once.

    Raises:
        OperatorError: The API server refuses what the operator cannot do without.
    """
    operator_key = await _insist(lambda: load_operator_key(cluster, namespace=settings.namespace))
    loop = asyncio.get_running_loop()
    store, serving = Store(), ServingReports(loop.time)
    executor = Executor(cluster, store, EventRecorder(cluster), serving, lambda obj: watcher.wake(obj))

    async def look(key: Key) -> float | None:
        return await reconciler.look(key)

    queue = WorkQueue(exposition.counts.watch(look, store))
    logs = LogTracker(cluster, lambda key: queue.enqueue(key, gentle=True))
    observer = Observer(store, logs, serving, operator_key)
    reconciler = Reconciler(settings, store, observer, executor, logs)
    watcher = Watcher(store, queue, executor, logs, serving)
    resync = Resync(cluster, store, settings.namespaces)
    await _insist(resync.prime)
    # Deployments too: the store service that nobody needs any more has no resource that would remember it.
    for kind in (*RECONCILED, DEPLOYMENT):
        for obj in store.everything(kind):
            watcher.wake(obj)
    exposition.show(store, queue, {name: name not in resync.refused for name in settings.namespaces})
    resyncing = loop.create_task(resync.run(watcher.wake), name="resync")
    return Runtime(queue, logs, watcher, resync, resyncing, exposition)


async def _insist(attempt: Callable[[], Awaitable[T]]) -> T:
    """Try until the API server answers: it may come up after the operator. Raises: OperatorError, for a refusal."""
    pause = 1.0
    while True:
        try:
            return await attempt()
        except TemporaryError as error:
            logger.warning("%s; next try in %.0f s", error, pause)
            await asyncio.sleep(pause)
            pause = min(_LONGEST_PAUSE_SECONDS, 2 * pause)
