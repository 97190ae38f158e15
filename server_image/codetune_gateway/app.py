"""The HTTP surface: routes, the key that every request must bring, and refusals in OpenAI's form."""

import logging
import time
from functools import partial

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from codetune_api.metadata import API_KEY_HEADER
from codetune_server.authenticating import ApiKeys

from codetune_gateway.completing import MAX_BODY_BYTES, Completions
from codetune_gateway.ending import Traffic
from codetune_gateway.errors import GatewayError, MissingKey, UnknownRoute, UpstreamError, WrongMethod
from codetune_gateway.forwarding import keep_session
from codetune_gateway.limiting import TokenBucket
from codetune_gateway.listing import list_models, show_model
from codetune_gateway.measuring import PASSAGE, Meter
from codetune_gateway.settings import GatewaySettings, Timing

logger = logging.getLogger(__name__)

HEALTH = "/healthz"
READY = "/readyz"
MODELS = "/v1/models"
COMPLETIONS = ("/v1/completions", "/v1/chat/completions")
_WITHOUT_KEY = frozenset({HEALTH, READY})
"""The kubelet has none."""


def build_app(
    settings: GatewaySettings,
    traffic: Traffic,
    timing: Timing,
    meter: Meter,
) -> web.Application:
    """The application that serves one team; its limit goes by the clock of its metrics."""
    app = web.Application(client_max_size=MAX_BODY_BYTES)
    keys = ApiKeys(settings.team_keys)
    traffic.watch(app)
    app.middlewares.extend((_refuse, meter.watch(COMPLETIONS), _build_guard(settings, keys)))
    app.cleanup_ctx.append(partial(keep_session, timing=timing))
    _add_probes(app.router, keys, traffic)
    _add_models(app.router, settings)
    rate = settings.config.requests_per_minute
    completions = Completions(settings, timing, TokenBucket(rate, meter.clock) if rate else None)
    for path in COMPLETIONS:
        app.router.add_post(path, completions.complete)
    return app


def _add_probes(router: web.UrlDispatcher, keys: ApiKeys, traffic: Traffic) -> None:
    async def tell_health(_: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def tell_readiness(_: web.Request) -> web.Response:
        if traffic.is_ending:
            return web.Response(status=503, text="The pod is about to end.")
        if not keys.count():
            text = "No API key is valid: put at least one, one a line, into the Secret of the Team's apiKeysSecretRef."
            return web.Response(status=503, text=text)
        return web.Response(text="ready")

    router.add_get(HEALTH, tell_health)
    router.add_get(READY, tell_readiness)


def _add_models(router: web.UrlDispatcher, settings: GatewaySettings) -> None:
    created = int(time.time())

    async def list_all(_: web.Request) -> web.Response:
        return web.json_response(list_models(settings.config, created))

    async def show_one(request: web.Request) -> web.Response:
        return web.json_response(show_model(settings.config, request.match_info["id"], created))

    router.add_get(MODELS, list_all)
    router.add_get(f"{MODELS}/{{id:.+}}", show_one)


def _build_guard(settings: GatewaySettings, keys: ApiKeys) -> Middleware:
    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        # Bytes that are no text come as lone surrogates, which no key has and which can't be encoded.
        authorization, api_key = (
            request.headers.get(name, "").encode(errors="backslashreplace").decode()
            for name in ("Authorization", API_KEY_HEADER)
        )
        key = keys.identify(authorization, api_key)
        if request.path not in _WITHOUT_KEY and key is None:
            raise MissingKey(
                f"This is the gateway of the team {settings.config.team}: give one of its API keys as "
                f"Authorization: Bearer … or {API_KEY_HEADER}: …"
            )
        if key is not None and PASSAGE in request:
            request[PASSAGE].identify(key)
        return await handler(request)

    return guard


@web.middleware
async def _refuse(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except UpstreamError as error:
        logger.warning("ModelDeployment %s: %s", error.deployment, error.reason)
        return _answer(error)
    except GatewayError as error:
        return _answer(error)
    except web.HTTPMethodNotAllowed as error:
        methods = ", ".join(sorted(error.allowed_methods))
        return _answer(WrongMethod(f"{request.path} takes {methods}.", error.allowed_methods))
    except web.HTTPNotFound:
        routes = ", ".join([f"GET {MODELS}", f"GET {MODELS}/ID", *(f"POST {path}" for path in COMPLETIONS)])
        return _answer(UnknownRoute(f"There is no such route here. There are {routes}."))


def _answer(error: GatewayError) -> web.Response:
    return web.json_response(error.to_wire(), status=error.status, headers=error.headers)
