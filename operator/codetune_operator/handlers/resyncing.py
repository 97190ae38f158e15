"""Compares the store with full lists: at the start, and now and then against what a watch has missed."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain, repeat

from codetune_operator.cluster.connecting import Cluster
from codetune_operator.cluster.kinds import NODE, Kind
from codetune_operator.cluster.listing import Listing, list_objects
from codetune_operator.cluster.peeking import is_ending
from codetune_operator.cluster.permitting import may_watch
from codetune_operator.cluster.refusals import GRANT
from codetune_operator.errors import ForbiddenError, MissingError, OperatorError
from codetune_operator.handlers.releasing import release
from codetune_operator.handlers.storing import Store
from codetune_operator.handlers.watching import FIELD_SELECTORS, LABEL_SELECTORS, WATCHED

logger = logging.getLogger(__name__)

RESYNC_SECONDS = 300.0
EARLY_SECONDS = (3.0, 10.0, 30.0, 90.0)
"""Pauses before the first comparisons: what vanishes after the first lists and before the watches begin is told by
nobody, and a restarted operator deletes things in just that time."""


@dataclass
class Resync:
    """Full lists of all that is watched."""

    cluster: Cluster
    store: Store
    namespaces: Sequence[str]
    """Empty: all."""
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    refused: frozenset[str] = frozenset()
    """Named namespaces that can't be read, as one that was deleted with the Role in it: the others go on."""
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    """Other namespaces are refused than at the start, so others are to be watched."""

    async def prime(self) -> None:
        """Fill the store before anything is reconciled. Raises: OperatorError."""
        self.refused = await self._compare(lambda obj: None)

    async def run(self, wake: Callable[[dict[str, object]], None]) -> None:
        """Compare for ever; what was missed wakes whom it concerns."""
        for pause in chain(EARLY_SECONDS, repeat(RESYNC_SECONDS)):
            await self.sleep(pause)
            try:
                refused = await self._compare(wake)
            except OperatorError as error:
                logger.warning("The store can't be compared with the API server now: %s", error)
                if self.namespaces and isinstance(error, ForbiddenError):
                    # Every namespace is refused: another start says so and ends.
                    self.changed.set()
                continue
            if refused != self.refused:
                self.changed.set()

    def _kinds(self) -> list[Kind]:
        return [kind for kind in WATCHED if kind != NODE or not self.namespaces]

    async def _compare(self, wake: Callable[[dict[str, object]], None]) -> frozenset[str]:
        """Returns: the namespaces that are refused. Raises: OperatorError, if every one is."""
        refused: set[str] = set()
        places: list[str | None] = [*dict.fromkeys(self.namespaces)] or [None]
        for kind in self._kinds():
            for place in places:
                if place in refused:
                    continue
                try:
                    listing = await self._list(kind, place)
                    await self._check_watch(kind, place)
                except ForbiddenError as error:
                    if place is None:
                        raise
                    await self._let_go(place)
                    if len(refused) + 1 == len(places):
                        raise
                    refused.add(place)
                    again = f"It is taken up again within {RESYNC_SECONDS / 60:.0f} minutes after that."
                    logger.warning("Namespace %s is left out for now: %s %s", place, error, again)
                    continue
                for obj in self.store.compare(kind, listing, None if place is None else [place]):
                    wake(obj)
        return frozenset(refused)

    async def _let_go(self, namespace: str) -> None:
        """Hold nothing up in a namespace whose end has taken the Role in it away, and which nobody reconciles now."""
        try:
            if await is_ending(self.cluster, namespace=namespace):
                await release(self.cluster, namespace=namespace)
        except OperatorError as error:
            logger.warning("What is held in namespace %s can't be let go of now: %s", namespace, error)

    async def _check_watch(self, kind: Kind, namespace: str | None) -> None:
        """Lists alone are not enough. Raises: ForbiddenError."""
        if namespace is not None and not await may_watch(self.cluster, kind=kind, namespace=namespace):
            raise ForbiddenError(f"The operator may list {kind.plural} there, but not watch them: {GRANT}.")

    async def _list(self, kind: Kind, namespace: str | None) -> Listing:
        labels, fields = LABEL_SELECTORS.get(kind, ""), FIELD_SELECTORS.get(kind, "")
        try:
            return await list_objects(self.cluster, kind=kind, namespace=namespace, labels=labels, fields=fields)
        except MissingError:
            logger.warning("The API server does not know %s yet: install the CRDs.", kind.plural)
            return Listing((), "")
