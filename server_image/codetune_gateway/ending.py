"""Serving until a signal, and leaving without a failed request.

From the signal on the pod is not ready, but serves: proxies and clients take a moment to learn of it. Then it takes no
more connections; requests that are under way, or come over connections that are there, end as they would have. Each
answer in that time closes its connection, so that its client goes to another pod.
"""

import asyncio
import signal
from contextlib import suppress

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from codetune_gateway.listening import listen, set_up
from codetune_gateway.settings import Timing


class Traffic:
    """Requests under way, and whether more are invited."""

    def __init__(self) -> None:
        self.is_ending = False
        self._in_flight = 0
        self._is_idle = asyncio.Event()
        self._is_idle.set()

    def watch(self, app: web.Application) -> None:
        """Count the requests of an application. It has to be the first to add a middleware."""
        app.middlewares.append(self._build_counter())
        app.on_response_prepare.append(self._close_connection)

    async def wait(self, seconds: float) -> None:
        """Until nothing is under way, but no longer than this."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._is_idle.wait(), seconds)

    def _build_counter(self) -> Middleware:
        @web.middleware
        async def count(request: web.Request, handler: Handler) -> web.StreamResponse:
            self._in_flight += 1
            self._is_idle.clear()
            try:
                return await handler(request)
            finally:
                self._in_flight -= 1
                if not self._in_flight:
                    self._is_idle.set()

        return count

    async def _close_connection(self, _request: web.Request, response: web.StreamResponse) -> None:
        if self.is_ending:
            response.headers["Connection"] = "close"
            response.force_close()


async def serve(app: web.Application, traffic: Traffic, timing: Timing, host: str | None, port: int) -> None:
    """Serve until SIGTERM or SIGINT, and then until what is under way has ended. Raises: OSError."""
    asked_to_end = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, asked_to_end.set)
    runner = await set_up(app, timing)
    try:
        listening = await listen(runner, host, port)
        await asked_to_end.wait()
        traffic.is_ending = True
        await asyncio.sleep(timing.settle)
        listening.close()
        await traffic.wait(timing.finish)
    finally:
        await runner.cleanup()
