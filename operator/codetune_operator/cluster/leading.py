"""Leading: standing by for the Lease, renewing it in time, and giving it back. `leases` says what is written."""

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from typing import Any, NoReturn

from codetune_operator.cluster.connecting import Cluster
from codetune_operator.cluster.kinds import LEASE
from codetune_operator.cluster.leases import LEASE_NAME, hold_lease, holder_of, release_lease
from codetune_operator.errors import ConflictError, LeadLostError, MissingError, OperatorError, TemporaryError

Obj = dict[str, Any]

logger = logging.getLogger(__name__)

RENEW_SECONDS = 10.0
"""A holder that could not renew for so long gives up, well before others may take over."""
RETRY_SECONDS = 2.0
_REQUEST_SECONDS = 4.0
"""Short enough for another try in time."""


# Not the `kubernetes` client's `leaderelection`: it blocks, can't be stopped, never releases, dies of urllib3's errors.
class Candidate:
    """One operator of several; used from the event loop only."""

    def __init__(self, cluster: Cluster, *, namespace: str, identity: str) -> None:
        self._cluster, self._namespace, self._identity = cluster, namespace, identity
        # A thread of its own, as the others may all be waiting for slow answers; one, so that requests keep their
        # order, also one that nobody waits for any more.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="lease")
        self._clock = asyncio.get_running_loop().time
        self._spec: Obj | None = None
        """The Lease's, as it was found last."""
        self._since = float("-inf")
        """When it was first found so."""
        self._renewed = float("-inf")
        """When the last renewal that went well began."""
        self._wrote = False

    async def acquire(self) -> None:
        """Stand by until the Lease is this operator's.

        Raises:
            OperatorError: The server refuses for good.
        """
        told = ""
        while (holder := await self._try_to_hold(TemporaryError)) != self._identity:
            if holder not in ("", told):
                told = holder
                logger.info("%s stands by: %s holds the Lease %s.", self._identity, holder, self._name)
            await asyncio.sleep(RETRY_SECONDS)
        logger.info("%s holds the Lease %s.", self._identity, self._name)

    async def keep(self) -> NoReturn:
        """Renew the Lease again and again.

        Raises:
            LeadLostError: It could not be renewed in time, or is somebody else's.
        """
        while True:
            await asyncio.sleep(RETRY_SECONDS)
            try:
                async with asyncio.timeout_at(self._renewed + RENEW_SECONDS):
                    await self._renew()
            except TimeoutError as error:
                message = f"{self._identity} could not renew the Lease {self._name} for {RENEW_SECONDS:.0f} s"
                raise LeadLostError(f"{message}, so another operator may take over, and this one ends.") from error

    async def release(self) -> None:
        """Give the Lease back, if it is this operator's; no harm is done where that fails."""
        if not self._wrote:
            return
        try:
            async with asyncio.timeout(RENEW_SECONDS):
                lease = await self._find()
                free = lease and release_lease(lease, identity=self._identity, now=datetime.now(UTC))
                if free:
                    await self._write(free)
                    logger.info("%s has released the Lease %s.", self._identity, self._name)
        except (OperatorError, TimeoutError) as error:
            logger.warning("The Lease %s is not released, so the next one waits for its end: %s", self._name, error)

    @property
    def _name(self) -> str:
        return f"{self._namespace}/{LEASE_NAME}"

    async def _renew(self) -> None:
        while (holder := await self._try_to_hold(OperatorError)) != self._identity:
            if holder:
                raise LeadLostError(f"{holder} has taken the Lease {self._name} over, so {self._identity} ends.")
            await asyncio.sleep(RETRY_SECONDS)

    async def _try_to_hold(self, forgiven: type[OperatorError]) -> str:
        """Take the Lease or renew it, unless it is somebody else's.

        Returns:
            Whose it is then; empty where that is not known, for errors that are `forgiven`.
        """
        begun = self._clock()
        try:
            lease = await self._find()
            wanted = hold_lease(
                lease,
                unchanged_seconds=self._clock() - self._since,
                identity=self._identity,
                namespace=self._namespace,
                now=datetime.now(UTC),
            )
            if wanted is None:
                return holder_of(lease or {})
            await self._write(wanted)
        except ConflictError:
            # Another one was faster; the next look shows who.
            return ""
        except forgiven as error:
            logger.warning("%s; next try in %.0f s", error, RETRY_SECONDS)
            return ""
        self._renewed = begun
        return self._identity

    async def _find(self) -> Obj | None:
        try:
            lease = await self._send("GET", LEASE.path(self._namespace, LEASE_NAME))
        except MissingError:
            return None
        if lease.get("spec") != self._spec:
            self._spec, self._since = lease.get("spec"), self._clock()
        return lease

    async def _write(self, lease: Obj) -> None:
        self._wrote = True
        if "resourceVersion" not in lease["metadata"]:
            await self._send("POST", LEASE.path(self._namespace), body=lease)
            return
        try:
            await self._send("PUT", LEASE.path(self._namespace, LEASE_NAME), body=lease)
        except MissingError as error:
            raise ConflictError(f"The Lease {self._name} was deleted meanwhile.") from error

    async def _send(self, method: str, path: str, body: Obj | None = None) -> Obj:
        send = partial(self._cluster.send, method, path, body=body, seconds=_REQUEST_SECONDS)
        return await asyncio.get_running_loop().run_in_executor(self._thread, send)
