"""One operator of several works; the others stand by, answer their probes meanwhile, and take over."""

import asyncio
import signal
from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web

from codetune_operator.cluster.leading import Candidate
from codetune_operator.errors import SettingsError

Work = Callable[[], Coroutine[Any, Any, None]]


class StandbyProbes:
    """Answers probes where kopf answers them, as long as it doesn't yet."""

    def __init__(self, url: str | None) -> None:
        self._url = url
        self._runner: web.AppRunner | None = None

    async def open(self) -> None:
        """Answer from now on. Raises: SettingsError, where nothing can listen there."""
        if self._url is None:
            return
        parts = urlsplit(self._url)
        app = web.Application()
        app.router.add_get(parts.path or "/", _answer)
        self._runner = web.AppRunner(app, handle_signals=False, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, parts.hostname, parts.port or 80).start()
        except OSError as error:
            await self.close()
            message = f"Probes can't be answered at {self._url}: {error}. Give another --liveness URL."
            raise SettingsError(message) from error

    async def close(self) -> None:
        """Leave the place to kopf; it does no harm twice."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None


async def run_elected(candidate: Candidate, work: Work, probes: StandbyProbes) -> None:
    """Stand by, work while the Lease is held, and release it once nothing works any more; until SIGTERM or SIGINT.

    Args:
        candidate: This operator.
        work: Works until it is told to stop; closes the probes and takes the signals over when it can.
        probes: Are opened here.

    Raises:
        LeadLostError: The Lease is lost while `work` is under way, so the process has to end before it does more.
        OperatorError: The API server refuses what the operator cannot do without.
    """
    loop = asyncio.get_running_loop()
    told = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, told.set)
    stopping = loop.create_task(told.wait(), name="stop")
    standing_by = loop.create_task(candidate.acquire(), name="standby")
    try:
        await probes.open()
        await asyncio.wait({standing_by, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not stopping.done():
            await standing_by
            await _lead(candidate, work, stopping)
            return
    finally:
        standing_by.cancel()
        stopping.cancel()
        await probes.close()
    # The Lease may have been taken at the last moment.
    await candidate.release()


async def _lead(candidate: Candidate, work: Work, stopping: asyncio.Task[Any]) -> None:
    loop = asyncio.get_running_loop()
    # Begun before kopf, which cancels at its end whatever began later.
    keeping = loop.create_task(candidate.keep(), name="lease")
    working = loop.create_task(work(), name="work")
    await asyncio.wait({keeping, working, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if not keeping.done() and not working.done():
        working.cancel()
        await asyncio.wait({keeping, working}, return_when=asyncio.FIRST_COMPLETED)
    if keeping.done():
        await keeping
    keeping.cancel()
    await candidate.release()
    if not working.cancelled():
        await working


async def _answer(_: web.Request) -> web.Response:
    return web.json_response({})
