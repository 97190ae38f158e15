"""`python -m codetune_gateway`: serve until SIGTERM."""

import asyncio
import logging
import sys

from prometheus_client import disable_created_metrics

from codetune_gateway.app import build_app
from codetune_gateway.ending import Traffic, serve
from codetune_gateway.exposing import expose
from codetune_gateway.measuring import Meter
from codetune_gateway.settings import GatewaySettings, Timing


def main() -> int:
    """Serve as the pod's environment says; returns the exit code."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO, stream=sys.stdout)
    try:
        settings = GatewaySettings.from_environment()
    except ValueError as error:
        print(f"codetune-gateway: {error}", file=sys.stderr)
        return 64
    asyncio.run(_run(settings, Timing()))
    return 0


async def _run(settings: GatewaySettings, timing: Timing) -> None:
    traffic, meter = Traffic(), Meter(settings.config.team)
    # They are a second series for each counter, which says when it began.
    disable_created_metrics()
    async with expose(meter.registry, timing, settings.host, settings.metrics_port):
        await serve(build_app(settings, traffic, timing, meter), traffic, timing, settings.host, settings.port)


if __name__ == "__main__":
    sys.exit(main())
