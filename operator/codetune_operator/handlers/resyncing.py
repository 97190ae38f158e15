"""Compares the store with full lists: at the start, and now and then against what a watch has missed."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from itertools import chain, repeat

from codetune_operator.cluster.connecting import Cluster
from codetune_operator.cluster.kinds import NODE, Kind
from codetune_operator.cluster.listing import Listing, list_objects
from codetune_operator.errors import MissingError, OperatorError
from codetune_operator.handlers.storing import Store
from codetune_operator.handlers.watching import FIELD_SELECTORS, LABEL_SELECTORS, WATCHED

logger = logging.getLogger(__name__)

RESYNC_SECONDS = 300.0
EARLY_SECONDS = (3.0, 10.0, 30.0, 90.0)
"""Pauses before the first comparisons: what vanishes after the first lists and before the watches begin is told by
nobody, and a restarted operator deletes things in just that time."""


@dataclass(frozen=True)
class Resync:
    """Full lists of all that is watched."""

    cluster: Cluster
    store: Store
    namespaces: Sequence[str]
    """Empty: all."""
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep

    async def prime(self) -> None:
        """Fill the store before anything is reconciled. Raises: OperatorError."""
        for kind in self._kinds():
            await self._compare(kind)

    async def run(self, wake: Callable[[dict[str, object]], None]) -> None:
        """Compare for ever; what was missed wakes whom it concerns."""
        for pause in chain(EARLY_SECONDS, repeat(RESYNC_SECONDS)):
            await self.sleep(pause)
            try:
                for kind in self._kinds():
                    for obj in await self._compare(kind):
                        wake(obj)
            except OperatorError as error:
                logger.warning("The store can't be compared with the API server now: %s", error)

    def _kinds(self) -> list[Kind]:
        return [kind for kind in WATCHED if kind != NODE or not self.namespaces]

    async def _compare(self, kind: Kind) -> list[dict[str, object]]:
        places: list[str | None] = list(self.namespaces) if self.namespaces and kind.namespaced else [None]
        changed: list[dict[str, object]] = []
        for place in places:
            listing = await self._list(kind, place)
            changed += self.store.compare(kind, listing, None if place is None else [place])
        return changed

    async def _list(self, kind: Kind, namespace: str | None) -> Listing:
        labels, fields = LABEL_SELECTORS.get(kind, ""), FIELD_SELECTORS.get(kind, "")
        try:
            return await list_objects(self.cluster, kind=kind, namespace=namespace, labels=labels, fields=fields)
        except MissingError:
            logger.warning("The API server does not know %s yet: install the CRDs.", kind.plural)
            return Listing((), "")
