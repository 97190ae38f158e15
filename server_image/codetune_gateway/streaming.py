"""Passing an answer on: piece by piece as it comes, and broken off where it breaks off."""

import asyncio
import logging

import aiohttp
from aiohttp import web
from aiohttp.http import HttpProcessingError

from codetune_gateway.counting import Answer, EventStream, WholeAnswer
from codetune_gateway.forwarding import diagnose
from codetune_gateway.headers import pass_down
from codetune_gateway.measuring import PASSAGE

logger = logging.getLogger(__name__)

_LOOK_SECONDS = 1.0
"""While a server says nothing, whether it is there is looked at this often."""


class BrokenOff(Exception):
    """The server went silent or away in the middle of its answer."""


async def pass_through(
    request: web.Request, answer: aiohttp.ClientResponse, deployment: str, *, is_usage_extra: bool
) -> web.StreamResponse:
    """Send a server's answer to the client, whatever its status is.

    Args:
        request: The client's.
        answer: The server's; its headers have come.
        deployment: The ModelDeployment, for the log.
        is_usage_extra: Whether the gateway has asked for the usage of a stream, and not the client.
    """
    passage = request[PASSAGE]
    headers = pass_down(answer.headers)
    counted = _read_as(answer, is_usage_extra)
    if isinstance(counted, EventStream):
        headers.popall("Content-Length", None)  # it may become shorter
    response = web.StreamResponse(status=answer.status, headers=headers)
    try:
        await response.prepare(request)
        await _copy(request, answer, response, counted)
        await response.write_eof()
    except BrokenOff as error:
        logger.warning("ModelDeployment %s: an answer broke off: %s", deployment, error)
        passage.break_off()
        # Without the last, empty piece of a chunked body, or with less than Content-Length, the client sees that it
        # is not whole. What it was sent before still arrives.
        if request.transport is not None:
            request.transport.close()
    except ConnectionError:
        passage.leave()  # there is nobody to tell
    finally:
        answer.close()  # at once, when it has not ended: nobody is to compute what nobody reads
        if counted.tokens is not None:
            passage.count(counted.tokens)
    return response


def _read_as(answer: aiohttp.ClientResponse, is_usage_extra: bool) -> Answer:
    """How the answer's tokens are to be found: nowhere in a refusal, or in what a server has packed unasked."""
    if answer.status != 200 or "Content-Encoding" in answer.headers:
        return Answer()
    match answer.content_type:
        case "text/event-stream":
            return EventStream(is_asked_for=is_usage_extra)
        case "application/json":
            return WholeAnswer()
        case _:
            return Answer()


async def _copy(
    request: web.Request, answer: aiohttp.ClientResponse, response: web.StreamResponse, counted: Answer
) -> None:
    """Raises: BrokenOff, ConnectionError when the client has gone."""
    with _Pieces(answer) as pieces:
        try:
            while piece := await pieces.read():
                if answer.status == 200:
                    request[PASSAGE].begin()
                await _write(response, counted.feed(piece))
        except BrokenOff:
            await _write(response, counted.finish())
            raise
    await _write(response, counted.finish())


async def _write(response: web.StreamResponse, data: bytes) -> None:
    """Send what there is to be sent, which may be nothing."""
    if data:
        await response.write(data)


class _Pieces:
    """The pieces of an answer as they come, as long as its connection is there.

    Over a malformed piece aiohttp closes the connection, but ends neither the waiting for more nor its time: so the
    connection is looked at now and then, by one timer for an answer: one for each piece is a tenth of a token's cost.
    """

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self._content = answer.content
        self._protocol = answer.connection.protocol if answer.connection is not None else None
        self._is_waiting = False
        """Nothing that came is left to be read."""
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> "_Pieces":
        self._look_again()
        return self

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()

    async def read(self) -> bytes:
        """The next piece; empty at the end. Raises: BrokenOff."""
        self._is_waiting = True
        try:
            return await self._content.readany()
        except (aiohttp.ClientError, HttpProcessingError, OSError) as error:
            raise BrokenOff(diagnose(error)[1]) from error
        finally:
            self._is_waiting = False

    def _look_again(self) -> None:
        if self._protocol is not None:
            self._timer = asyncio.get_running_loop().call_later(_LOOK_SECONDS, self._look)

    def _look(self) -> None:
        is_gone = self._protocol is not None and not self._protocol.connected
        is_told = self._content.is_eof() or self._content.exception() is not None
        if is_gone and self._is_waiting and not is_told:
            self._content.set_exception(HttpProcessingError())
        else:
            self._look_again()
