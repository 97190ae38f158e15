"""`python -m codetune_store`: serve until SIGTERM."""

import logging
import sys

from aiohttp import web

from codetune_store.app import build_app
from codetune_store.settings import StoreSettings

_SHUTDOWN_SECONDS = 20.0


def main() -> int:
    """Serve as the pod's environment says; returns the exit code."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO, stream=sys.stdout)
    try:
        settings = StoreSettings.from_environment()
    except ValueError as error:
        print(f"codetune-store: {error}", file=sys.stderr)
        return 64
    app = build_app(settings)
    web.run_app(
        app, host=settings.host, port=settings.port, access_log=None, print=None, shutdown_timeout=_SHUTDOWN_SECONDS
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
