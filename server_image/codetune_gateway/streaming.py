"""Passing an answer on: piece by piece as it comes, and broken off where it breaks off."""

import logging

import aiohttp
from aiohttp import web

from codetune_gateway.forwarding import explain
from codetune_gateway.headers import pass_down

logger = logging.getLogger(__name__)


class BrokenOff(Exception):
    """The server went silent or away in the middle of its answer."""


async def pass_through(request: web.Request, answer: aiohttp.ClientResponse, deployment: str) -> web.StreamResponse:
    """Send a server's answer to the client, whatever its status is."""
    response = web.StreamResponse(status=answer.status, headers=pass_down(answer.headers))
    try:
        await response.prepare(request)
        while piece := await _read(answer):
            await response.write(piece)
        await response.write_eof()
    except BrokenOff as error:
        logger.warning("ModelDeployment %s: an answer broke off: %s", deployment, error)
        # Without the last, empty piece of a chunked body, or with less than Content-Length, the client sees that it
        # is not whole. What it was sent before still arrives.
        if request.transport is not None:
            request.transport.close()
    except ConnectionError:
        pass  # the client has gone; there is nobody to tell
    finally:
        answer.close()  # at once, when it has not ended: nobody is to compute what nobody reads
    return response


async def _read(answer: aiohttp.ClientResponse) -> bytes:
    """The next piece; empty at the end. Raises: BrokenOff."""
    try:
        return await answer.content.readany()
    except (aiohttp.ClientError, OSError) as error:
        raise BrokenOff(explain(error)) from error
