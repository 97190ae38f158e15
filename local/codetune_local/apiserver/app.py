"""The HTTP surface: one handler that authenticates, authorizes and dispatches."""

import json
import logging
import ssl
from functools import partial
from typing import Any

import yaml
from aiohttp import web

from codetune_local.apiserver.access.authorizing import Attributes, Tokens, User, describe_refusal, is_allowed
from codetune_local.apiserver.access.bootstrapping import bootstrap
from codetune_local.apiserver.access.impersonating import impersonate
from codetune_local.apiserver.answering import documents, reviews, subresources
from codetune_local.apiserver.answering.calls import Call, read_body
from codetune_local.apiserver.answering.reading import read
from codetune_local.apiserver.answering.requests import Target, attributes_of, is_resource, parse_path
from codetune_local.apiserver.answering.subresources import PodRuntime
from codetune_local.apiserver.answering.writing import write
from codetune_local.apiserver.catalog import REVIEWS, ResourceInfo
from codetune_local.apiserver.errors import ApiError, bad_request, forbidden, method_not_allowed, no_such_route
from codetune_local.apiserver.registry import Registry

logger = logging.getLogger(__name__)
Obj = dict[str, Any]

__all__ = ["PodRuntime", "build_app", "serve"]


class Server:
    """The requests of one API server."""

    def __init__(self, registry: Registry, tokens: Tokens, runtime: PodRuntime) -> None:
        self.registry = registry
        self.tokens = tokens
        self.runtime = runtime

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer any request; errors become Status objects."""
        try:
            return await self._answer(request)
        except ApiError as error:
            failure = error
        except (json.JSONDecodeError, yaml.YAMLError, UnicodeDecodeError) as error:
            failure = bad_request(f"the body of the request can't be read: {error}")
        except (ConnectionResetError, web.HTTPException):
            raise
        except Exception as error:
            logger.exception("%s %s failed", request.method, request.path)
            text = f"an error on the server has prevented the request from succeeding: {error!r}; its log has the rest"
            failure = ApiError(500, "InternalError", text)
        return web.json_response(failure.status(), status=failure.code)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        path = request.path
        if path in ("/healthz", "/livez", "/readyz"):
            return web.Response(text="ok")
        user = self.tokens.authenticate(request.headers.get("Authorization", ""), self.registry)
        user = impersonate(user, request.headers, self.registry)
        if is_resource(path):
            return await self._resource(request, user)
        self._authorize(user, Attributes(request.method.lower(), path=path))
        if request.method not in ("GET", "HEAD"):
            raise method_not_allowed()
        return self._document(request)

    def _authorize(self, user: User, wanted: Attributes) -> None:
        if is_allowed(user, wanted, self.registry):
            return
        why = describe_refusal(user, wanted)
        if wanted.path:
            raise ApiError(403, "Forbidden", f"forbidden: {why}")
        raise forbidden(wanted.resource.partition("/")[0], wanted.group, wanted.name, why)

    # -- resources

    async def _resource(self, request: web.Request, user: User) -> web.StreamResponse:
        target = parse_path(request.path)
        self._authorize(user, attributes_of(target, request.method, request.query))
        if (target.group, target.plural) in REVIEWS:
            if request.method != "POST":
                raise method_not_allowed()
            return reviews.answer(target, await read_body(request), user, self.registry, self.tokens)
        call = Call(request, self._info(target), target, self.registry, partial(self._authorize, user))
        if target.subresource in subresources.SEPARATE:
            return await subresources.answer(call, self.tokens, self.runtime)
        return await (read(call) if request.method in ("GET", "HEAD") else write(call))

    def _info(self, target: Target) -> ResourceInfo:
        info = self.registry.find(target.group, target.version, target.plural)
        if target.namespace is not None and not info.namespaced:
            raise no_such_route()
        if target.subresource and target.subresource not in info.subresources:
            raise no_such_route()
        return info

    # -- documents

    def _document(self, request: web.Request) -> web.Response:
        path, accept = request.path.rstrip("/"), request.headers.get("Accept", "")
        infos = self.registry.resources()
        if path == "/version":
            return web.json_response(documents.VERSION)
        if path in ("/api", "/apis"):
            return self._groups(path, accept, infos)
        if path.startswith("/openapi/"):
            return self._openapi(path, accept, infos)
        parts = path.strip("/").split("/")
        if parts[0] == "api" and len(parts) == 2 and parts[1] == "v1":
            return web.json_response(documents.resource_list("", "v1", infos))
        if parts[0] != "apis" or len(parts) not in (2, 3):
            raise no_such_route()
        versions = documents.group_versions(infos).get(parts[1])
        if versions is None or (len(parts) == 3 and parts[2] not in versions):
            raise no_such_route()
        if len(parts) == 2:
            return web.json_response(documents.api_group(parts[1], versions))
        return web.json_response(documents.resource_list(parts[1], parts[2], infos))

    def _openapi(self, path: str, accept: str, infos: list[ResourceInfo]) -> web.Response:
        if path == "/openapi/v2":
            if "proto-openapi" in accept:
                return web.Response(
                    body=documents.OPENAPI_V2_PROTOBUF, headers={"Content-Type": documents.PROTO_OPENAPI}
                )
            if accept and "json" not in accept and "*/*" not in accept:
                raise ApiError(406, "NotAcceptable", "only JSON is served")
            return web.json_response(documents.openapi_v2(infos))
        if path == "/openapi/v3":
            return web.json_response(documents.openapi_v3_index(infos))
        parts = path.removeprefix("/openapi/v3/").split("/")
        if parts[0] == "api" and len(parts) == 2:
            return web.json_response(documents.openapi_v3("", parts[1], infos))
        if parts[0] == "apis" and len(parts) == 3:
            return web.json_response(documents.openapi_v3(parts[1], parts[2], infos))
        raise no_such_route()

    def _groups(self, path: str, accept: str, infos: list[ResourceInfo]) -> web.Response:
        if "as=APIGroupDiscoveryList" in accept and "v=v2" in accept:
            kind = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
            body = json.dumps(documents.aggregated(infos, core=path == "/api"))
            return web.Response(body=body.encode(), headers={"Content-Type": kind})
        if path == "/api":
            return web.json_response({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []})
        groups = [
            documents.api_group(name, versions) for name, versions in documents.group_versions(infos).items() if name
        ]
        return web.json_response({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})


def build_app(registry: Registry, tokens: Tokens, runtime: PodRuntime) -> web.Application:
    """The application that serves a registry; what every cluster has from the beginning is made where it is missing."""
    bootstrap(registry)
    app = web.Application(client_max_size=64 << 20)
    app.router.add_route("*", "/{path:.*}", Server(registry, tokens, runtime).handle)
    return app


async def serve(app: web.Application, port: int, tls: ssl.SSLContext) -> tuple[web.AppRunner, int]:
    """Listen on loopback; returns the runner and the port."""
    # A watch or a followed log ends with its client, also when nothing more is written to it.
    runner = web.AppRunner(app, shutdown_timeout=1.0, access_log=None, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port, ssl_context=tls)
    await site.start()
    return runner, runner.addresses[0][1]
