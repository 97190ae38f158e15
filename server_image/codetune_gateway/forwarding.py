"""Asking the server of a model: connecting with patience, once more where nothing was lost, and in words of ours.

A completion may be asked for twice only if nothing of it was answered, and not of a server that it may have killed:
so connecting is tried again, and what was sent over a kept connection that turned out to be closed is sent once more.
"""

import asyncio
import io
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from types import SimpleNamespace

import aiohttp
from aiohttp import web
from aiohttp.http import HttpProcessingError
from yarl import URL

from codetune_gateway.errors import Failure, UpstreamFailed, UpstreamUnavailable
from codetune_gateway.settings import Timing

SESSION = web.AppKey("session", aiohttp.ClientSession)
_NOT_ADMITTED = frozenset({401, 403})


@dataclass(frozen=True)
class Question:
    """A request to the server of a model."""

    deployment: str
    """Its ModelDeployment, for messages."""
    url: URL
    headers: Mapping[str, str]
    body: bytes


@dataclass
class _Attempt:
    """What one attempt went over."""

    reused: bool = False


async def keep_session(app: web.Application, timing: Timing) -> AsyncIterator[None]:
    """The connections to servers, as long as the application runs: as many at a time as there are requests."""
    tracing = aiohttp.TraceConfig()
    tracing.on_connection_reuseconn.append(_note_reuse)
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=timing.keep_alive),
        timeout=aiohttp.ClientTimeout(total=None, connect=timing.connect, sock_read=timing.read),
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=("User-Agent", "Accept"),
        auto_decompress=False,
        trace_configs=[tracing],
    ) as session:
        app[SESSION] = session
        yield


async def ask(session: aiohttp.ClientSession, question: Question, timing: Timing) -> aiohttp.ClientResponse:
    """The server's answer, of which the headers have come.

    Raises:
        UpstreamUnavailable: It can't be connected to.
        UpstreamFailed: It hung up before it answered, said nothing for too long, or doesn't admit the gateway.
    """
    pauses = list(timing.retries)
    asked_again = False
    while True:
        attempt = _Attempt()
        try:
            return _check(await _send(session, question, attempt), question)
        except aiohttp.ConnectionTimeoutError as error:
            raise _unreachable(question, error) from error
        except aiohttp.ClientConnectorError as error:
            if not pauses:
                raise _unreachable(question, error) from error
            await asyncio.sleep(pauses.pop(0))
        except (aiohttp.ClientError, OSError) as error:
            if asked_again or not attempt.reused or not _is_hang_up(error):
                raise _failed(question, error) from error
            asked_again = True


async def _send(session: aiohttp.ClientSession, question: Question, attempt: _Attempt) -> aiohttp.ClientResponse:
    """Raises: aiohttp.ClientError, OSError."""
    return await session.post(
        question.url,
        data=io.BytesIO(question.body),  # in pieces, so that a large one holds up nobody else
        headers=question.headers,
        allow_redirects=False,
        trace_request_ctx=attempt,
    )


def _check(answer: aiohttp.ClientResponse, question: Question) -> aiohttp.ClientResponse:
    """Raises: UpstreamFailed when the server refuses the gateway: a client would take that for its own key's fault."""
    if answer.status not in _NOT_ADMITTED:
        return answer
    answer.close()
    message = (
        f"The ModelDeployment {question.deployment} does not admit the team's gateway: the first key of its "
        "apiKeysSecretRef must be one that it takes. Your own key is right."
    )
    raise UpstreamFailed(message, question.deployment, Failure.NOT_ADMITTED, f"it answered {answer.status}")


async def _note_reuse(
    _session: aiohttp.ClientSession, context: SimpleNamespace, _params: aiohttp.TraceConnectionReuseconnParams
) -> None:
    context.trace_request_ctx.reused = True


def _is_hang_up(error: Exception) -> bool:
    return isinstance(error, (aiohttp.ServerDisconnectedError, ConnectionError, aiohttp.ClientOSError))


def _unreachable(question: Question, error: Exception) -> UpstreamUnavailable:
    message = (
        f"The ModelDeployment {question.deployment} can't be reached now: try again in a moment, and look at "
        f"`kubectl get mdep {question.deployment}`."
    )
    return UpstreamUnavailable(message, question.deployment, *diagnose(error))


def _failed(question: Question, error: Exception) -> UpstreamFailed:
    failure, reason = diagnose(error)
    message = f"The ModelDeployment {question.deployment} did not answer: {reason}. Try again in a moment."
    return UpstreamFailed(message, question.deployment, failure, reason)


def diagnose(error: Exception) -> tuple[Failure, str]:
    """What went wrong between the gateway and a server. Without what either sent, in which keys may be."""
    match error:
        case aiohttp.ClientConnectorDNSError():
            return Failure.UNREACHABLE, "its name is not known"
        case aiohttp.ClientConnectorError():
            return Failure.UNREACHABLE, f"can't connect: {error.strerror or type(error.os_error).__name__}"
        case aiohttp.ConnectionTimeoutError():
            return Failure.UNREACHABLE, "can't connect: no answer in time"
        case aiohttp.ServerTimeoutError():
            return Failure.SILENT, "it said nothing for too long"
        case aiohttp.ServerDisconnectedError() | aiohttp.ClientPayloadError() | OSError():
            return Failure.HUNG_UP, "it hung up"
        case aiohttp.ClientResponseError() | HttpProcessingError():
            return Failure.NO_HTTP, "it does not speak HTTP"
        case _:
            return Failure.OTHER, type(error).__name__
