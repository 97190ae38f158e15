"""The two routes that complete: read, choose, ask, pass on."""

import json
from typing import Any

from aiohttp import web
from codetune_api.gateway import PROJECT_HEADER, GatewayConfig, Upstream
from codetune_server.rewriting import parse_object, replace_model
from yarl import URL

from codetune_gateway.choosing import choose
from codetune_gateway.counting import ask_for_usage
from codetune_gateway.credentials import find_key
from codetune_gateway.errors import BadRequest, Failure, TooLarge, TooManyRequests, UpstreamUnavailable
from codetune_gateway.forwarding import SESSION, Question, ask
from codetune_gateway.headers import pass_up
from codetune_gateway.limiting import TokenBucket
from codetune_gateway.measuring import PASSAGE
from codetune_gateway.settings import GatewaySettings, Timing
from codetune_gateway.streaming import pass_through

MAX_BODY_BYTES = 64 << 20
"""Largest request, as the servers have it; a prompt of a million tokens is a tenth of it."""


class Completions:
    """Takes requests to complete."""

    def __init__(self, settings: GatewaySettings, timing: Timing, bucket: TokenBucket | None) -> None:
        self._settings = settings
        self._timing = timing
        self._bucket = bucket

    async def complete(self, request: web.Request) -> web.StreamResponse:
        """Answer one. Raises: GatewayError."""
        self._take_token()
        body = await _read_body(request)
        content = _parse(body)
        config = self._settings.config
        choice = choose(config, request.headers.get(PROJECT_HEADER, ""), content.get("model"))
        request[PASSAGE].choose(choice)
        upstream = choice.upstream
        named = _name_model(body, content, upstream.model)
        counting = ask_for_usage(named, content | {"model": upstream.model})
        question = Question(
            upstream.deployment,
            url=_build_url(request, _find_address(config, upstream)),
            headers=pass_up(request.headers, find_key(self._settings.server_keys, upstream)),
            body=named if counting is None else counting,
        )
        answer = await ask(request.app[SESSION], question, self._timing)
        return await pass_through(request, answer, upstream.deployment, is_usage_extra=counting is not None)

    def _take_token(self) -> None:
        """Raises: TooManyRequests."""
        if self._bucket is None:
            return
        seconds = self._bucket.take()
        if seconds > 0:
            message = (
                f"The team {self._settings.config.team} has used up its {self._bucket.per_minute:g} requests a minute "
                f"of this gateway: ask again in {seconds:.1f} s, or raise spec.limits.requestsPerMinute of the Team."
            )
            raise TooManyRequests(message, seconds)


def _build_url(request: web.Request, address: str) -> URL:
    """The same route of a server, with the query string as it came."""
    _, mark, query = request.raw_path.partition("?")
    return URL(f"{address.rstrip('/')}{request.path}{mark}{query}", encoded=True)


async def _read_body(request: web.Request) -> bytes:
    """Raises: TooLarge, BadRequest."""
    try:
        return await request.read()
    except web.HTTPRequestEntityTooLarge as error:
        raise TooLarge(f"The body has more than {MAX_BODY_BYTES} bytes: send less in one request.") from error
    except web.RequestPayloadError as error:
        raise BadRequest("The body can't be unpacked as its Content-Encoding says, or is not whole.") from error


def _parse(body: bytes) -> dict[str, Any]:
    """Raises: BadRequest."""
    content = parse_object(body)
    if content is None:
        raise BadRequest('The body must be a JSON object, such as {"prompt": "…"}.')
    return content


def _find_address(config: GatewayConfig, upstream: Upstream) -> str:
    """Raises: UpstreamUnavailable."""
    if upstream.url is None:
        # Of one that does not exist nobody knows what its base model is called.
        what = f"The model {upstream.model}" if upstream.model else "The base model"
        message = (
            f"{what} of the ModelDeployment {upstream.deployment} is not served now: "
            f"`kubectl get team {config.team} -o yaml` says why."
        )
        raise UpstreamUnavailable(message, upstream.deployment, Failure.NO_ENDPOINT, "it has no endpoint")
    return upstream.url


def _name_model(body: bytes, content: dict[str, Any], model: str) -> bytes:
    """The body with the name that the model has at its server; nothing else of it changes."""
    if isinstance(content.get("model"), str):
        return replace_model(body, content, model)
    return json.dumps({**content, "model": model}).encode()
