"""`GET /metrics` on a port of its own, which no Service has: who scrapes needs no key, and a key opens no metrics."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.aiohttp import make_aiohttp_handler

from codetune_gateway.listening import listen, set_up
from codetune_gateway.settings import Timing

METRICS = "/metrics"


def build_metrics_app(registry: CollectorRegistry) -> web.Application:
    """The application that tells the metrics, and nothing else."""
    app = web.Application()
    app.router.add_get(METRICS, make_aiohttp_handler(registry))
    return app


@asynccontextmanager
async def expose(registry: CollectorRegistry, timing: Timing, host: str | None, port: int) -> AsyncIterator[int]:
    """Tell the metrics as long as this lasts; gives the port. Raises: OSError when the address is not to be had."""
    runner = await set_up(build_metrics_app(registry), timing)
    try:
        listening = await listen(runner, host, port)
        yield listening.sockets[0].getsockname()[1]
        listening.close()
    finally:
        await runner.cleanup()
