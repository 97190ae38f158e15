"""The adapter middleware: `vllm … --middleware codetune_server.middleware.AdapterMiddleware`.

A pure ASGI class, so that an answer streams through it untouched but for one name. It answers `/codetune/*`, asks for
an API key where there are any, refuses vLLM's administrative routes to everybody outside, and turns the stable model
name of a request into the version that is served now; everything else passes.
"""

import asyncio
import logging
from functools import partial

from codetune_api.metadata import API_KEY_HEADER
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from codetune_server.admitting import PREFIX, AdminRoutes, TokenFile
from codetune_server.answering import NameRestoring, Rewriting, with_length
from codetune_server.authenticating import ApiKeys
from codetune_server.bodies import BodyTooLarge, read_body, replay
from codetune_server.copying import AdapterCopies
from codetune_server.draining import Traffic
from codetune_server.keeping import AdapterKeeper
from codetune_server.listing import MODELS, list_models, pick_model
from codetune_server.mounting import MountedSet
from codetune_server.opening import is_open
from codetune_server.pinning import find_commit
from codetune_server.replies import error_reply, missing_key, unknown_model
from codetune_server.rewriting import parse_object, replace_model
from codetune_server.routes import VllmRoutes
from codetune_server.settings import ServerSettings
from codetune_server.verifying import AdapterVerifier
from codetune_server.versions import Version

logger = logging.getLogger(__name__)

MAX_BODY_BYTES = 64 << 20
"""Largest JSON request; a prompt of a million tokens is a tenth of it."""
_WITHOUT_KEY = frozenset({"/health", "/ping"})
"""vLLM's health routes: the kubelet has no key."""
_ADAPTER_HEADER = b"x-amzn-sagemaker-adapter-identifier"
_KEY_HEADER = API_KEY_HEADER.lower().encode()


class AdapterMiddleware:
    """Holds the desired adapters in vLLM and gives each request the version that is current when it comes."""

    def __init__(self, app: ASGIApp, settings: ServerSettings | None = None) -> None:
        self._app = app
        self._settings = settings or ServerSettings.from_environment()
        self._keys = ApiKeys(self._settings.api_keys)
        self._traffic = Traffic()
        self._keeper: AdapterKeeper | None = None
        self._admin: AdminRoutes | None = None
        self._task: asyncio.Task[None] | None = None
        self._following: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take one ASGI connection."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, partial(self._follow_lifespan, scope, send))
        elif scope["type"] == "http":
            self._start(scope)
            await self._receive(scope, receive, send)
        elif self._keys.are_asked_for and not self._is_admitted(scope):
            await send({"type": "websocket.close", "code": 1008, "reason": "no valid API key"})
        elif not is_open(_path_of(scope)):
            await send({"type": "websocket.close", "code": 1008, "reason": "closed to clients"})
        else:
            await self._app(_without(_KEY_HEADER, scope), receive, send)

    async def _follow_lifespan(self, scope: Scope, send: Send, message: Message) -> None:
        if message["type"] == "lifespan.startup.complete":
            self._start(scope)
        elif message["type"].startswith("lifespan.shutdown"):
            for task in filter(None, (self._task, self._following)):
                task.cancel()
        await send(message)

    def _start(self, scope: Scope) -> AdapterKeeper:
        """Begin to keep adapters, once; `scope` is any that the server sent."""
        if self._keeper is None:
            settings = self._settings
            vllm = VllmRoutes(self._app, scope, settings.api_key)
            copies = AdapterCopies(settings.cache, settings.cache_bytes)
            verifier = AdapterVerifier(
                settings.store, copies, settings.base_model, settings.max_lora_rank, settings.files, settings.mirror
            )
            self._keeper = AdapterKeeper(vllm, verifier)
            token, mounted = TokenFile(settings.token_file), MountedSet(settings.adapters_file)
            commit = find_commit(settings.store, settings.model)
            self._admin = AdminRoutes(self._keeper, token, self._keys, self._traffic, mounted, commit)
            self._task = asyncio.create_task(self._keeper.run(), name="codetune-adapters")
            self._task.add_done_callback(self._note_end)
            self._following = asyncio.create_task(mounted.follow(self._admin.take), name="codetune-mounted-adapters")
        return self._keeper

    def _note_end(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) and self._admin:
            logger.critical("the adapter task ended; restart the pod", exc_info=error)
            self._admin.fail(f"the adapter task ended with {type(error).__name__}: {error}; the pod must be restarted")

    async def _receive(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Our own routes and those of the kubelet as they come; for the others a key, and they are waited for."""
        path = _path_of(scope)
        if path.startswith(PREFIX) and self._admin:
            await (await self._admin.answer(scope, receive, path))(scope, receive, send)
        elif path in _WITHOUT_KEY:
            await self._app(scope, receive, send)
        elif self._keys.are_asked_for and not self._is_admitted(scope):
            await missing_key()(scope, receive, send)
        else:
            send = self._traffic.begin(send)
            try:
                await self._route(_without(_KEY_HEADER, scope), receive, send, path)
            finally:
                self._traffic.end()

    def _is_admitted(self, scope: Scope) -> bool:
        headers = Headers(scope=scope)
        if scope.get("method") == "OPTIONS" and {"origin", "access-control-request-method"} <= {*headers}:
            return True  # a browser asks beforehand, without the key, whether it may ask; vLLM answers that itself
        return self._keys.admit(headers.get("authorization", ""), headers.get(API_KEY_HEADER, ""))

    async def _route(self, scope: Scope, receive: Receive, send: Send, path: str) -> None:
        if not is_open(path):
            await _closed(path)(scope, receive, send)
        elif scope["method"] == "GET" and (path == MODELS or path.startswith(f"{MODELS}/")):
            await self._list(scope, receive, send, path)
        elif scope["method"] == "POST" and self._start(scope).versions and _is_json(scope):
            await self._complete(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _list(self, scope: Scope, receive: Receive, send: Send, path: str) -> None:
        versions = self._start(scope).versions

        def rewrite(status: int, body: bytes) -> tuple[int, bytes]:
            if status != 200:
                return status, body
            name = path.removeprefix(MODELS).removeprefix("/")
            return pick_model(body, versions, name) if name else (200, list_models(body, versions))

        whole = scope.get("root_path", "") + MODELS
        await self._app({**scope, "path": whole, "raw_path": whole.encode()}, receive, Rewriting(send, rewrite))

    async def _complete(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A request with a JSON body, which may name an adapter."""
        try:
            body = await read_body(receive, MAX_BODY_BYTES)
        except BodyTooLarge as error:
            await error_reply(413, str(error))(scope, receive, send)
            return
        if body is None:
            return
        versions = self._start(scope).versions
        request = parse_object(body) or {}
        name = request.get("model")
        if not isinstance(name, str):
            await self._app(_without_adapter_header(scope), replay(body, receive), send)
        elif version := versions.current(name):
            versions.begin(version)
            try:
                await self._pass_to_version(version, replace_model(body, request, version.model), scope, receive, send)
            finally:
                versions.end(version)
        elif versions.loaded(name):
            await unknown_model(name)(scope, receive, send)
        else:
            await self._app(_without_adapter_header(scope), replay(body, receive), send)

    async def _pass_to_version(self, version: Version, body: bytes, scope: Scope, receive: Receive, send: Send) -> None:
        inner = _without_adapter_header({**scope, "headers": with_length(scope["headers"], len(body))})
        await self._app(inner, replay(body, receive), NameRestoring(send, version.model, version.name))


def _path_of(scope: Scope) -> str:
    path: str = scope["path"].removeprefix(scope.get("root_path", ""))
    return path


def _closed(path: str) -> JSONResponse:
    message = f"{path} is closed to clients: the API begins with /v1, and the server is set by its ModelDeployment"
    return error_reply(403, message)


def _is_json(scope: Scope) -> bool:
    kind = Headers(scope=scope).get("content-type", "application/json").partition(";")[0].strip().lower()
    return kind == "application/json" or kind.endswith("+json")


def _without_adapter_header(scope: Scope) -> Scope:
    """vLLM's SageMaker route takes the model from this header, past the body; here the body alone says it."""
    return _without(_ADAPTER_HEADER, scope)


def _without(name: bytes, scope: Scope) -> Scope:
    """The scope without the headers of a name, which is in small letters."""
    given = scope.get("headers", [])  # ASGI lets it be left out
    headers = [header for header in given if header[0].lower() != name]
    return scope if len(headers) == len(given) else {**scope, "headers": headers}
