"""What the gateway counts: who uses which model how much, and how that goes.

Every label is one of few: projects, ModelDeployments and models are those of the configuration, a key is told by the
name that it has in the team's Secret. What a client made up is counted with empty labels.
"""

import asyncio
import time
from collections.abc import Callable, Collection

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from codetune_gateway.choosing import Choice
from codetune_gateway.counting import Tokens
from codetune_gateway.errors import GatewayError, TooManyRequests, UpstreamError

LABELS = ("team", "project", "deployment", "model", "key")
LEFT = 499
"""The code of a request whose client hung up before it had the whole answer; nobody is sent it."""
_FIRST_BYTE = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
"""Seconds: from a cached prompt to one that waits in a queue."""
_ANSWER = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
"""Seconds: from a line of code to a long chat."""


class Meter:
    """The metrics of one gateway.

    Args:
        team: Its Team.
        clock: Seconds that only grow.
    """

    def __init__(self, team: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.team = team
        self.clock = clock
        self.registry = CollectorRegistry()
        self.requests = self._count("requests", "Requests to complete, by the status of the answer.", "code")
        self.limited = self._count("limited_requests", "Requests turned away by the team's limit.")
        self.failures = self._count("upstream_failures", "Requests that the model's server did not answer.", "reason")
        self.broken = self._count("broken_answers", "Answers that the model's server broke off.")
        self.prompt_tokens = self._count("prompt_tokens", "Tokens of prompts.")
        self.completion_tokens = self._count("completion_tokens", "Tokens that were computed.")
        name = "codetune_gateway_requests_in_flight"
        self.in_flight = Gauge(name, "Requests under way.", LABELS, registry=self.registry)
        self.first_byte = self._time("first_byte", "Seconds to the first byte of an answer's body.", _FIRST_BYTE)
        self.answer = self._time("answer", "Seconds to the end of a whole answer.", _ANSWER)

    def _count(self, name: str, text: str, *more: str) -> Counter:
        return Counter(f"codetune_gateway_{name}", text, (*LABELS, *more), registry=self.registry)

    def _time(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"codetune_gateway_{name}_seconds", text, LABELS, buckets=buckets, registry=self.registry)

    def watch(self, paths: Collection[str]) -> Middleware:
        """A middleware that counts the requests to some routes. What refuses them has to be inside it."""

        @web.middleware
        async def measure(request: web.Request, handler: Handler) -> web.StreamResponse:
            if request.path not in paths:
                return await handler(request)
            request[PASSAGE] = passage = Passage(self)
            code = 500
            try:
                response = await handler(request)
                code = response.status
                return response
            except GatewayError as error:
                code = error.status
                passage.note(error)
                raise
            except web.HTTPException as error:
                code = error.status
                raise
            except asyncio.CancelledError:
                code = LEFT
                raise
            finally:
                passage.end(code)

        return measure


class Passage:
    """One request to complete, from its head to the end of its answer."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._began = meter.clock()
        self._key = ""
        self._labels = (meter.team, "", "", "", "")
        self._is_in_flight = False
        self._has_begun = False
        self._is_broken = False
        self._was_left = False

    def identify(self, key: str) -> None:
        """Whose it is: the name that the key has in the team's Secret."""
        self._key = key
        self._labels = (*self._labels[:-1], key)

    def choose(self, choice: Choice) -> None:
        """What it is answered by; from now on it is under way."""
        upstream = choice.upstream
        self._labels = (self._meter.team, choice.project, upstream.deployment, upstream.model, self._key)
        self._is_in_flight = True
        self._meter.in_flight.labels(*self._labels).inc()

    def begin(self) -> None:
        """The answer is what was asked for, and its first bytes are there."""
        if not self._has_begun:
            self._has_begun = True
            self._meter.first_byte.labels(*self._labels).observe(self._meter.clock() - self._began)

    def count(self, tokens: Tokens) -> None:
        """What it took."""
        self._meter.prompt_tokens.labels(*self._labels).inc(tokens.prompt)
        self._meter.completion_tokens.labels(*self._labels).inc(tokens.completion)

    def break_off(self) -> None:
        """The server has gone in the middle of its answer."""
        self._is_broken = True
        self._meter.broken.labels(*self._labels).inc()

    def leave(self) -> None:
        """The client has gone in the middle of its answer."""
        self._was_left = True

    def note(self, error: GatewayError) -> None:
        """Why it was refused, as far as the status does not say it."""
        if isinstance(error, TooManyRequests):
            self._meter.limited.labels(*self._labels).inc()
        elif isinstance(error, UpstreamError):
            self._meter.failures.labels(*self._labels, error.failure).inc()

    def end(self, code: int) -> None:
        """It is over, with this status."""
        if self._is_in_flight:
            self._meter.in_flight.labels(*self._labels).dec()
        if self._has_begun and not self._is_broken and not self._was_left and code != LEFT:
            self._meter.answer.labels(*self._labels).observe(self._meter.clock() - self._began)
        self._meter.requests.labels(*self._labels, LEFT if self._was_left else code).inc()


PASSAGE = web.RequestKey("passage", Passage)
