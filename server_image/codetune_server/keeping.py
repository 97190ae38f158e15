"""Keeps vLLM holding the desired adapters: one task, level-based, one pass for each desired set.

A pass goes through the set in order; each adapter is brought to its wanted version or refused by name, and the others
go on. A newer set supersedes the pass at its next step. What failed is tried again after a while, because a folder
that is still being copied or a full engine mends itself.
"""

import asyncio
import logging
import time
from collections.abc import Callable

from codetune_api.contracts import AdapterReport, DesiredAdapter, DesiredAdapters, ServerReport

from codetune_server.copying import AdapterCopy
from codetune_server.refusing import Refused
from codetune_server.routes import VllmError, VllmRoutes
from codetune_server.verifying import AdapterVerifier
from codetune_server.versions import Version, VersionTable, version_model

logger = logging.getLogger(__name__)

FIRST_RETRY_SECONDS = 5.0
LAST_RETRY_SECONDS = 300.0
BOOT_PAUSE_SECONDS = 0.5
WAIT_SECONDS = 300.0
"""How long a pod that starts is not ready because of what may mend itself: the others answer meanwhile, and a base
model without its adapters is better than nothing for ever."""
_MAY_MEND_ITSELF = frozenset({"StoreUnavailable", "CacheFull"})
"""Refusals that are about this pod or the store, and not about an adapter."""
_WORDS = 300


class AdapterKeeper:
    """The desired set, the state of each adapter, and the task that makes the second follow the first."""

    def __init__(
        self,
        vllm: VllmRoutes,
        verifier: AdapterVerifier,
        *,
        first_retry_seconds: float = FIRST_RETRY_SECONDS,
        wait_seconds: float = WAIT_SECONDS,
    ) -> None:
        self._wait_seconds = wait_seconds
        self._vllm = vllm
        self._verifier = verifier
        self._first_retry = self._retry = first_retry_seconds
        self._wake = asyncio.Event()
        self._changed = asyncio.Condition()
        self._desired = DesiredAdapters()
        self._refusals: dict[str, Refused] = {}
        self._base_models: list[str] = []
        self._generation = 0
        self._settled = -1
        self._waits_until: float | None = None
        self.versions = VersionTable(on_idle=self._wake.set)
        self.is_ready = False
        """True from the first settled set on, unless an adapter of it is only missing because the store is: a later
        swap doesn't take the pod out of its Service."""

    def want(self, desired: DesiredAdapters) -> int:
        """Replace the desired set; returns its generation, for `wait_settled`."""
        self._desired = desired
        self._generation += 1
        self._retry = self._first_retry
        self._refusals.clear()
        self._wake.set()
        return self._generation

    async def wait_settled(self, generation: int, seconds: float) -> None:
        """Return when this set or a newer one is settled, or after some seconds."""
        try:
            async with asyncio.timeout(seconds), self._changed:
                await self._changed.wait_for(lambda: self._settled >= generation)
        except TimeoutError:
            logger.info("adapters are still loading after %.0f s", seconds)

    def report(self) -> ServerReport:
        """What is served now."""
        adapters = [self._report_adapter(adapter) for adapter in self._desired.adapters]
        names = [adapter.name for adapter in self._desired.adapters if self.versions.current(adapter.name)]
        return ServerReport(
            ready=self.is_ready and self._settled == self._generation,
            adapters=adapters,
            models=[*self._base_models, *names],
        )

    def _report_adapter(self, adapter: DesiredAdapter) -> AdapterReport:
        current = self.versions.current(adapter.name)
        refusal = self._refusals.get(adapter.name)
        is_wanted = current is not None and adapter.digest in (None, current.digest)
        is_settled = adapter.digest is not None or self._settled == self._generation
        return AdapterReport(
            name=adapter.name,
            digest=current.digest if current else None,
            desired_digest=adapter.digest,
            phase="Failed" if refusal else "Ready" if is_wanted and is_settled else "Loading",
            reason=refusal.reason if refusal else "",
            message=refusal.message if refusal else "",
            rank=refusal.rank if refusal else None,
        )

    async def run(self) -> None:
        """Follow the desired set until cancelled."""
        await self._wait_for_vllm()
        while True:
            self._wake.clear()
            generation = self._generation
            if self._settled != generation or self._refusals:
                await self._reconcile(generation)
            if self._generation != generation:
                continue  # what this pass loaded may be wanted by the newer set
            left = await self._let_go()
            pause = self._next_retry() if self._refusals or left else None
            try:
                await asyncio.wait_for(self._wake.wait(), pause)
            except TimeoutError:
                logger.info("trying again what failed")

    def _next_retry(self) -> float:
        pause, self._retry = self._retry, min(2 * self._retry, LAST_RETRY_SECONDS)
        return pause

    async def _wait_for_vllm(self) -> None:
        while not self._base_models:
            try:
                if await self._vllm.is_healthy():
                    self._base_models = await self._vllm.base_models()
            except VllmError as error:
                logger.info("vLLM is not up yet: %s", error)
            if not self._base_models:
                await asyncio.sleep(BOOT_PAUSE_SECONDS)

    async def _reconcile(self, generation: int) -> None:
        """One pass over the desired set, left early when a newer one has come."""
        desired = self._desired.adapters
        wanted = {adapter.name for adapter in desired}
        self.versions.retire([name for name in self.versions.names() if name not in wanted])
        for adapter in desired:
            try:
                await self._bring(adapter, is_superseded=lambda: self._generation != generation)
            except Refused as refusal:
                if self._generation == generation:
                    self._refusals[adapter.name] = refusal
                logger.warning("adapter %s is refused (%s): %s", adapter.name, refusal.reason, refusal.message)
            else:
                self._refusals.pop(adapter.name, None)
            if self._generation != generation:
                return
        self._settled = generation
        self.is_ready = self.is_ready or not self._waits()
        async with self._changed:
            self._changed.notify_all()

    def _waits(self) -> bool:
        """Whether it is too early to take requests without the adapters that are missing."""
        now = time.monotonic()
        if self._waits_until is None:
            self._waits_until = now + self._wait_seconds
        mends = any(refusal.reason in _MAY_MEND_ITSELF for refusal in self._refusals.values())
        return mends and now < self._waits_until

    async def _bring(self, adapter: DesiredAdapter, is_superseded: Callable[[], bool]) -> None:
        """Have the adapter's wanted version answer under its name. Raises: Refused."""
        if adapter.name in self._base_models:
            raise Refused(
                "InvalidAdapter", f"{adapter.name} is the base model's own name: give the adapter another one"
            )
        verified = await self._verify(adapter)
        if is_superseded():
            return
        model = version_model(adapter.name, verified.digest)
        version = self.versions.loaded(model)
        if version is None:
            version = Version(adapter.name, verified.digest, verified.folder)
            await self._load(version)
            self.versions.add(version)
        if not is_superseded():
            self.versions.switch(version)

    async def _verify(self, adapter: DesiredAdapter) -> AdapterCopy:
        """Raises: Refused."""
        try:
            return await asyncio.to_thread(self._verifier.verify, adapter)
        except Refused:
            raise
        except Exception as error:  # the border: what nobody thought of in one adapter's files must not stop the others
            logger.exception("the check of adapter %s broke", adapter.name)
            raise Refused(
                "InvalidAdapter", f"its check broke off with {type(error).__name__}: {str(error)[:_WORDS]}"
            ) from error

    async def _load(self, version: Version) -> None:
        try:
            await self._vllm.load(version.model, version.folder)
        except VllmError as error:
            raise Refused("LoadFailed", str(error)) from error
        logger.info("loaded adapter %s", version.model)

    async def _let_go(self) -> bool:
        """Unload what nobody uses; returns whether something could not be unloaded."""
        failed = False
        for version in self.versions.unused():
            try:
                await self._vllm.unload(version.model)
            except VllmError as error:
                failed = True
                logger.warning("adapter %s could not be unloaded, it is tried again: %s", version.model, error)
            else:
                self.versions.forget(version)
                logger.info("unloaded adapter %s", version.model)
        return await self._drop_copies() or failed

    async def _drop_copies(self) -> bool:
        """Remove what was copied for versions that are neither held nor wanted; returns whether that failed."""
        wanted = {adapter.digest for adapter in self._desired.adapters if adapter.digest}
        try:
            await asyncio.to_thread(self._verifier.keep_only, wanted | self.versions.digests())
        except OSError as error:
            logger.warning("copies of former adapters could not be removed, it is tried again: %s", error)
            return True
        return False
