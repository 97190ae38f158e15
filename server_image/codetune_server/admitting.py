"""`/codetune/*`: readiness for everybody, adapters for whoever holds the token."""

import hmac
import logging
import os
from pathlib import Path

from codetune_api.contracts import DesiredAdapters
from starlette.datastructures import Headers, QueryParams
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope

from codetune_server.authenticating import ApiKeys
from codetune_server.bodies import BodyTooLarge, read_body
from codetune_server.draining import DRAIN, Traffic
from codetune_server.keeping import AdapterKeeper
from codetune_server.mounting import MountedSet, parse_desired
from codetune_server.replies import error_reply

logger = logging.getLogger(__name__)

PREFIX = "/codetune/"
ADAPTERS = "/codetune/adapters"
READY = "/codetune/ready"
MAX_BODY_BYTES = 1 << 20
MAX_WAIT_SECONDS = 600.0


class TokenFile:
    """The bearer token, read again when its file changes."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._signature: tuple[int, int, int] | None = None
        self._token = b""

    def admits(self, authorization: str) -> bool:
        """Whether an Authorization header carries the token; without a token nobody is admitted."""
        scheme, _, given = authorization.partition(" ")
        token = self._read()
        return bool(token) and scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), token)

    def _read(self) -> bytes:
        if self._path is None:
            return b""
        try:
            found = os.stat(self._path)
            signature = (found.st_ino, found.st_mtime_ns, found.st_size)
            if signature != self._signature:
                self._token, self._signature = self._path.read_bytes().strip(), signature
        except OSError as error:
            logger.error("the adapter token can't be read: %s", error)
            self._token, self._signature = b"", None
        return self._token


class AdminRoutes:
    """Answers the routes that are ours."""

    def __init__(
        self,
        keeper: AdapterKeeper,
        token: TokenFile,
        keys: ApiKeys,
        traffic: Traffic,
        mounted: MountedSet,
        model_commit: str | None = None,
    ) -> None:
        self._keeper = keeper
        self._mounted = mounted
        self._keys = keys
        self._token = token
        self._traffic = traffic
        self._model_commit = model_commit
        desired, self._problem = mounted.read()
        """Why the set at start could not be read; another one heals it."""
        keeper.want(desired)

    def fail(self, problem: str) -> None:
        """Take the pod out of its Service."""
        self._problem = problem

    async def answer(self, scope: Scope, receive: Receive, path: str) -> Response:
        """The reply to a request below `/codetune/`."""
        method = scope["method"]
        if path == READY and method in ("GET", "HEAD"):
            return self._readiness()
        if path not in (ADAPTERS, DRAIN):
            return error_reply(404, f"there is no {method} {path}")
        if not self._token.admits(Headers(scope=scope).get("authorization", "")):
            reply = error_reply(401, "give the adapter token as Authorization: Bearer …")
            reply.headers["WWW-Authenticate"] = "Bearer"
            return reply
        if path == DRAIN:
            return self._leave() if method == "PUT" else error_reply(405, f"{path} takes PUT, not {method}")
        if method == "GET":
            return self._report()
        if method == "PUT":
            return await self._replace(scope, receive)
        return error_reply(405, f"{path} takes GET and PUT, not {method}")

    def _readiness(self) -> Response:
        problem = "the pod is about to end" if self._traffic.is_leaving else self._problem
        ready = self._keeper.is_ready and not problem
        message = problem or ("" if ready else "vLLM or its adapters are still loading")
        return JSONResponse({"ready": ready, "message": message}, 200 if ready else 503)

    def _leave(self) -> Response:
        """There is no way back: a pod that is told so gets its signal next."""
        self._traffic.is_leaving = True
        return JSONResponse({"inFlight": self._traffic.in_flight})

    def _report(self) -> Response:
        also = {"api_keys": self._keys.count(), "model_commit": self._model_commit}
        return JSONResponse(self._keeper.report().model_copy(update=also).to_wire())

    async def _replace(self, scope: Scope, receive: Receive) -> Response:
        try:
            seconds = float(QueryParams(scope["query_string"]).get("wait", "0"))
            if not 0 <= seconds <= MAX_WAIT_SECONDS:
                raise ValueError(f"wait={seconds} is not between 0 and {MAX_WAIT_SECONDS:.0f} seconds")
            body = await read_body(receive, MAX_BODY_BYTES)
            desired = parse_desired(body or b"")
        except BodyTooLarge as error:
            return error_reply(413, str(error))
        except ValueError as error:
            return error_reply(400, str(error))
        self._mounted.supersede()
        generation = self.take(desired)
        if seconds:
            await self._keeper.wait_settled(generation, seconds)
        return self._report()

    def take(self, desired: DesiredAdapters) -> int:
        """Want this set from now on, whatever the former one was; returns its generation."""
        self._problem = ""
        return self._keeper.want(desired)
