"""The HTTP surface: routes, the token that every request must bring, and refusals as JSON."""

import hmac
import logging
from pathlib import Path

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from codetune_api.metadata import STORE_TOKEN_HEADER, STORE_TOKEN_SECRET
from codetune_api.storing import StoreRefusal
from codetune_api.uploads import MAX_BODY_BYTES
from codetune_bucket.errors import BucketError

from codetune_store.errors import StoreError, Unauthorized, translate
from codetune_store.reading_routes import ReadingRoutes
from codetune_store.settings import StoreSettings
from codetune_store.upload_routes import UploadRoutes

logger = logging.getLogger(__name__)

HEALTH = "/healthz"
_HTTP_REASONS = {404: "NotFound", 405: "InvalidRequest", 413: "TooLarge"}


def build_app(settings: StoreSettings) -> web.Application:
    """The application that serves one namespace's store."""
    app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[_refuse, _build_guard(settings)])
    app.router.add_get(HEALTH, _tell_health)
    ReadingRoutes(settings).add_to(app.router)
    UploadRoutes(settings).add_to(app.router)
    return app


async def _tell_health(_: web.Request) -> web.Response:
    return web.Response(text="ok")


def _build_guard(settings: StoreSettings) -> Middleware:
    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path != HEALTH:
            _check_token(settings.token_file, request.headers.get(STORE_TOKEN_HEADER, ""))
        return await handler(request)

    return guard


def _check_token(file: Path, given: str) -> None:
    try:
        expected = file.read_bytes().strip()
    except OSError as error:
        raise Unauthorized(f"The store service has no token to compare with yet: {error.strerror}.") from error
    if not expected or not hmac.compare_digest(given.encode(errors="surrogateescape"), expected):
        raise Unauthorized(f"The header {STORE_TOKEN_HEADER} must carry the token of the Secret {STORE_TOKEN_SECRET}.")


@web.middleware
async def _refuse(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except StoreError as error:
        return _answer(error.status, error.refusal)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        reason = _HTTP_REASONS.get(error.status, "InvalidRequest")
        message = f"{request.method} {request.path}: {error.reason}."
        if error.status == 413:
            message = f"The body has more than {MAX_BODY_BYTES} bytes: send it in several pieces."
        return _answer(error.status, StoreRefusal(reason=reason, message=message))
    except (OSError, BucketError) as error:
        refusal = translate(error)
        if refusal is None:
            raise
        logger.error("%s %s: %s", request.method, request.path, error)
        return _answer(refusal.status, refusal.refusal)


def _answer(status: int, refusal: StoreRefusal) -> web.Response:
    return web.json_response(refusal.to_wire(), status=status)
