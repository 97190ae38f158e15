"""Taking connections: quietly, and without work for clients that have hung up."""

import asyncio

from aiohttp import web
from aiohttp.http import HttpProcessingError

from codetune_gateway.errors import BadRequest
from codetune_gateway.settings import Timing


class _Connection(web.RequestHandler):
    """A client's connection. What is no HTTP is refused in words of ours: aiohttp's quote it, and with it its key."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to a request that can't be read, or that an error of ours ended."""
        if not isinstance(exc, HttpProcessingError):
            return super().handle_error(request, status, exc, message)
        refusal = BadRequest("The request is no valid HTTP, or its body is not packed as its Content-Encoding says.")
        response = web.json_response(refusal.to_wire(), status=status)
        response.force_close()
        return response


async def set_up(app: web.Application, timing: Timing) -> web.AppRunner:
    """Start the application; nothing listens yet."""
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=timing.close)
    await runner.setup()
    return runner


async def listen(runner: web.AppRunner, host: str | None, port: int) -> asyncio.Server:
    """Take connections for an application. Raises: OSError when the address is not to be had."""
    loop, server = asyncio.get_running_loop(), runner.server
    if server is None:
        raise RuntimeError("set_up comes first")

    def accept() -> _Connection:
        return _Connection(server, loop=loop, access_log=None)  # type: ignore[arg-type]  # None: no log, as in AppRunner

    return await loop.create_server(accept, host, port)
