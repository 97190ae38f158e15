"""The HTTP surface: one handler that authenticates, authorizes and dispatches."""

import json
import logging
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any, Protocol

import yaml
from aiohttp import web

from codetune_local.apiserver import documents, patching, preparing, protobuf, proxying, reviews, tables, watching
from codetune_local.apiserver.authorizing import Attributes, Tokens, User, describe_refusal, is_allowed
from codetune_local.apiserver.catalog import REVIEWS, ResourceInfo
from codetune_local.apiserver.errors import ApiError, bad_request, forbidden, no_such_route
from codetune_local.apiserver.registry import Registry
from codetune_local.apiserver.requests import (
    Target,
    delete_options,
    integer,
    is_dry_run,
    is_true,
    manager_of,
    parse_path,
)
from codetune_local.apiserver.scaling import read_scale, write_scale
from codetune_local.apiserver.schemas import schema_of
from codetune_local.apiserver.selecting import field_predicate, label_predicate

logger = logging.getLogger(__name__)
Obj = dict[str, Any]
APPLY = ("application/apply-patch+yaml", "application/apply-patch+json", "application/apply-patch+cbor")


class PodRuntime(Protocol):
    """What the kubelet offers the API server."""

    def read_log(
        self,
        pod: Obj,
        container: str,
        *,
        follow: bool,
        previous: bool,
        since_time: datetime | None,
        timestamps: bool,
        tail_lines: int | None,
        limit_bytes: int | None,
    ) -> AsyncIterator[bytes]:
        """A container's log."""
        ...


class Server:
    """The requests of one API server."""

    def __init__(self, registry: Registry, tokens: Tokens, runtime: PodRuntime) -> None:
        self.registry = registry
        self.tokens = tokens
        self.runtime = runtime

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer any request; errors become Status objects."""
        try:
            if request.path in ("/healthz", "/livez", "/readyz"):
                return web.Response(text="ok")
            user = self.tokens.authenticate(request.headers.get("Authorization", ""), self.registry)
            if request.path.startswith(("/api/", "/apis/")) and len(request.path.strip("/").split("/")) > (
                2 if request.path.startswith("/api/") else 3
            ):
                return await self._resource(request, user)
            self._authorize(user, Attributes(request.method.lower(), path=request.path))
            return self._document(request)
        except ApiError as error:
            return web.json_response(error.status(), status=error.code)
        except (json.JSONDecodeError, yaml.YAMLError, UnicodeDecodeError) as error:
            failure = bad_request(f"the body of the request can't be read: {error}")
            return web.json_response(failure.status(), status=400)

    def _authorize(self, user: User, wanted: Attributes) -> None:
        if not is_allowed(user, wanted, self.registry):
            plural, _, _ = wanted.resource.partition("/")
            why = describe_refusal(user, wanted)
            if wanted.path:
                raise ApiError(403, "Forbidden", f"forbidden: {why}")
            raise forbidden(plural, wanted.group, wanted.name, why)

    # -- documents

    def _document(self, request: web.Request) -> web.Response:
        path, accept = request.path.rstrip("/"), request.headers.get("Accept", "")
        infos = self.registry.resources()
        parts = path.strip("/").split("/")
        if path == "/version":
            return web.json_response(documents.VERSION)
        if path in ("/api", "/apis"):
            return self._groups(path, accept, infos)
        if parts[0] == "api" and len(parts) == 2:
            return web.json_response(documents.resource_list("", parts[1], infos))
        if parts[0] == "apis" and len(parts) in (2, 3):
            versions = documents.group_versions(infos).get(parts[1])
            if versions is None or (len(parts) == 3 and parts[2] not in versions):
                raise no_such_route()
            found = (
                documents.api_group(parts[1], versions)
                if len(parts) == 2
                else documents.resource_list(parts[1], parts[2], infos)
            )
            return web.json_response(found)
        if path == "/openapi/v2":
            if "json" not in accept and "*/*" not in accept and accept:
                raise ApiError(406, "NotAcceptable", "only JSON is served")
            return web.json_response(documents.openapi_v2(infos))
        if path == "/openapi/v3":
            return web.json_response(documents.openapi_v3_index(infos))
        if path.startswith("/openapi/v3/api"):
            group, version = (parts[3], parts[4]) if parts[2] == "apis" else ("", parts[3])
            return web.json_response(documents.openapi_v3(group, version, infos))
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

    # -- resources

    async def _resource(self, request: web.Request, user: User) -> web.StreamResponse:
        target = parse_path(request.path)
        query = request.query
        wanted = Attributes(
            target.verb(request.method, query),
            target.group,
            f"{target.plural}/{target.subresource}" if target.subresource else target.plural,
            target.namespace or (target.name if target.plural == "namespaces" and not target.group else ""),
            target.name,
        )
        if target.subresource == "proxy":
            wanted = Attributes(
                {
                    "GET": "get",
                    "HEAD": "get",
                    "OPTIONS": "get",
                    "POST": "create",
                    "PUT": "update",
                    "PATCH": "patch",
                    "DELETE": "delete",
                }[request.method],
                wanted.group,
                wanted.resource,
                wanted.namespace,
                target.name.split(":")[0],
            )
        self._authorize(user, wanted)
        if (target.group, target.plural) in REVIEWS:
            return reviews.answer(target, await _body(request), user, self.registry, self.tokens)
        info = self.registry.find(target.group, target.version, target.plural)
        if target.namespace is not None and not info.namespaced:
            raise no_such_route()
        if target.subresource and target.subresource not in info.subresources:
            raise no_such_route()
        if target.subresource in (
            "log",
            "proxy",
            "binding",
            "eviction",
            "token",
            "scale",
            "exec",
            "attach",
            "portforward",
        ):
            return await self._subresource(request, info, target)
        if request.method in ("GET", "HEAD"):
            if is_true(query, "watch"):
                return await self._watch(request, info, target)
            return self._get(request, info, target) if target.name else self._list(request, info, target)
        if request.method == "DELETE":
            return await self._delete(request, info, target)
        return await self._write(request, info, target)

    def _get(self, request: web.Request, info: ResourceInfo, target: Target) -> web.Response:
        obj = self.registry.get(info, target.namespace or "", target.name)
        return _reply(request, info, obj)

    def _selection(self, request: web.Request, info: ResourceInfo, target: Target) -> watching.Selection:
        fields = request.query.get("fieldSelector", "")
        if target.name:
            fields = f"metadata.name={target.name}" + (f",{fields}" if fields else "")
        return watching.Selection(
            info, target.namespace, label_predicate(request.query.get("labelSelector", "")), field_predicate(fields)
        )

    def _list(self, request: web.Request, info: ResourceInfo, target: Target) -> web.Response:
        found = watching.select(self.registry, self._selection(request, info, target))
        shown, token, remaining = watching.page(
            found, integer(request.query, "limit"), request.query.get("continue", "")
        )
        metadata: Obj = {"resourceVersion": str(self.registry.storage.version)}
        if token:
            metadata |= {"continue": token, "remainingItemCount": remaining}
        if (include := _table(request)) is not None:
            return web.json_response(tables.build_table(info, shown, metadata, include))
        kind, version, items = _partial(request, info, shown)
        return web.json_response({"kind": f"{kind}List", "apiVersion": version, "metadata": metadata, "items": items})

    async def _watch(self, request: web.Request, info: ResourceInfo, target: Target) -> web.StreamResponse:
        query = request.query
        version = query.get("resourceVersion", "")
        initial = is_true(query, "sendInitialEvents")
        since = None if version in ("", "0") or initial else integer(query, "resourceVersion")
        seconds = integer(query, "timeoutSeconds") or None
        events = watching.watch(
            self.registry,
            self._selection(request, info, target),
            since=since,
            bookmarks=is_true(query, "allowWatchBookmarks"),
            mark_initial=initial,
            seconds=float(seconds) if seconds else None,
        )
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        include = _table(request)
        headers = True
        try:
            async for event in events:
                obj = event["object"]
                if event["type"] == "BOOKMARK" and include is not None:
                    obj = {
                        "kind": "Table",
                        "apiVersion": "meta.k8s.io/v1",
                        "metadata": obj["metadata"],
                        "columnDefinitions": [],
                        "rows": [
                            {
                                "cells": [],
                                "object": {
                                    "kind": "PartialObjectMetadata",
                                    "apiVersion": "meta.k8s.io/v1",
                                    "metadata": obj["metadata"],
                                },
                            }
                        ],
                    }
                elif include is not None:
                    obj = tables.build_table(
                        info, [obj], {"resourceVersion": obj["metadata"]["resourceVersion"]}, include, headers=headers
                    )
                    headers = False
                elif event["type"] != "BOOKMARK":
                    obj = _partial(request, info, [obj])[2][0]
                await response.write(watching.encode({"type": event["type"], "object": obj}))
        except ApiError as error:
            await response.write(watching.encode({"type": "ERROR", "object": error.status()}))
        except ConnectionResetError:
            logger.debug("a watch on %s ended with its client", info.key)
        return response

    async def _delete(self, request: web.Request, info: ResourceInfo, target: Target) -> web.Response:
        options = delete_options(await _body(request), request.query, info.kind)
        dry_run = is_dry_run(request.query)
        if target.name:
            namespace = target.namespace or ""
            left = self.registry.delete(info, namespace, target.name, dry_run=dry_run, **options)
            if (
                self.registry.storage.get(self.registry.store_key(info), namespace, target.name) is None
                and info.key != "pods"
            ):
                about = {
                    "name": target.name,
                    "kind": info.plural,
                    "uid": left["metadata"]["uid"],
                    **({"group": info.group} if info.group else {}),
                }
                return web.json_response(
                    {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": about}
                )
            return _reply(request, info, self.registry.present(info, left))
        found = watching.select(self.registry, self._selection(request, info, target))
        for obj in found:
            self.registry.delete(
                info, obj["metadata"].get("namespace", ""), obj["metadata"]["name"], dry_run=dry_run, **options
            )
        return web.json_response(
            {"kind": f"{info.kind}List", "apiVersion": info.api_version, "metadata": {}, "items": found}
        )

    async def _write(self, request: web.Request, info: ResourceInfo, target: Target) -> web.Response:
        query, namespace = request.query, target.namespace or ""
        dry_run, manager = is_dry_run(query), manager_of(query, request.headers.get("User-Agent", ""))
        warnings: list[str] = []
        if request.method == "PATCH":
            obj, created = await self._patch(request, info, target, manager, dry_run, warnings)
            return _reply(request, info, self.registry.present(info, obj), 201 if created else 200, warnings)
        body = await _body(request)
        preparing.check_type(info, body)
        self._check_unknown(info, body, query.get("fieldValidation", ""), warnings)
        if request.method == "POST":
            if target.name:
                raise ApiError(
                    405, "MethodNotAllowed", "the server does not allow this method on the requested resource"
                )
            obj = self.registry.create(info, namespace, body, manager=manager, dry_run=dry_run)
            return _reply(request, info, self.registry.present(info, obj), 201, warnings)
        if target.subresource == "finalize":
            manager = ""
        obj = self.registry.update(
            info, namespace, target.name, body, subresource=target.subresource, manager=manager, dry_run=dry_run
        )
        return _reply(request, info, self.registry.present(info, obj), 200, warnings)

    def _check_unknown(self, info: ResourceInfo, body: Obj, mode: str, warnings: list[str]) -> None:
        unknown = preparing.find_unknown(info, body)
        mode = mode or "Warn"
        if unknown and mode == "Strict":
            raise preparing.strict_error(info, unknown)
        if mode == "Warn":
            warnings += [f'unknown field "{path}"' for path in unknown]

    async def _patch(
        self, request: web.Request, info: ResourceInfo, target: Target, manager: str, dry_run: bool, warnings: list[str]
    ) -> tuple[Obj, bool]:
        kind = request.content_type
        namespace, query = target.namespace or "", request.query
        raw = await request.read()
        if kind in APPLY:
            body = yaml.safe_load(raw)
            if not query.get("fieldManager"):
                raise bad_request(
                    'PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: is required for apply patch'
                )
            preparing.check_type(info, body)
            self._check_unknown(info, body, query.get("fieldValidation", ""), warnings)
            return self.registry.apply(
                info,
                namespace,
                target.name,
                body,
                manager=manager,
                force=is_true(query, "force"),
                subresource=target.subresource,
                dry_run=dry_run,
            )
        patch = json.loads(raw)
        if kind not in (
            "application/json-patch+json",
            "application/merge-patch+json",
            "application/strategic-merge-patch+json",
        ):
            raise ApiError(415, "UnsupportedMediaType", f"the body of the request was in an unknown format - {kind}")
        if kind.startswith("application/strategic") and info.custom is not None:
            raise ApiError(
                415,
                "UnsupportedMediaType",
                "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml",
            )

        def change(live: Obj) -> Obj:
            shown = self.registry.present(info, live)
            if kind == "application/json-patch+json":
                result = patching.json_patch(shown, patch)
            elif kind == "application/merge-patch+json":
                result = patching.merge_patch(shown, patch)
            else:
                result = patching.strategic_merge_patch(shown, patch, schema_of(info))
            self._check_unknown(info, result, query.get("fieldValidation", ""), warnings)
            return result

        return self.registry.modify(
            info, namespace, target.name, change, subresource=target.subresource, manager=manager, dry_run=dry_run
        ), False

    async def _subresource(self, request: web.Request, info: ResourceInfo, target: Target) -> web.StreamResponse:
        namespace = target.namespace or ""
        if target.subresource == "log":
            return await self._log(request, self.registry.get(info, namespace, target.name))
        if target.subresource == "proxy":
            return await proxying.forward(request, info, target, self.registry)
        if target.subresource == "scale":
            if request.method == "GET":
                return web.json_response(read_scale(info, self.registry.get(info, namespace, target.name)))
            return web.json_response(await write_scale(request, info, target, self.registry))
        if target.subresource == "token":
            return reviews.issue_token(
                self.registry.get(info, namespace, target.name), await _body(request), self.tokens
            )
        if target.subresource == "eviction":
            self.registry.delete(info, namespace, target.name)
            return web.json_response({"kind": "Status", "apiVersion": "v1", "status": "Success"}, status=201)
        if target.subresource == "binding":
            node = (await _body(request))["target"]["name"]
            self.registry.modify(
                info, namespace, target.name, lambda pod: {**pod, "spec": {**pod["spec"], "nodeName": node}}
            )
            return web.json_response({"kind": "Status", "apiVersion": "v1", "status": "Success"}, status=201)
        raise ApiError(
            501,
            "NotImplemented",
            f"the local cluster does not offer {target.subresource}: pods are plain processes of this machine",
        )

    async def _log(self, request: web.Request, pod: Obj) -> web.StreamResponse:
        query = request.query
        names = [
            found["name"]
            for found in [*(pod["spec"].get("containers") or []), *(pod["spec"].get("initContainers") or [])]
        ]
        container = query.get("container") or (names[0] if names else "")
        if container not in names:
            raise bad_request(f"container {container} is not valid for pod {pod['metadata']['name']}")
        since = datetime.fromisoformat(query["sinceTime"]) if query.get("sinceTime") else None
        if query.get("sinceSeconds"):
            since = datetime.fromtimestamp(datetime.now(UTC).timestamp() - integer(query, "sinceSeconds"), UTC)
        lines = self.runtime.read_log(
            pod,
            container,
            follow=is_true(query, "follow"),
            previous=is_true(query, "previous"),
            since_time=since,
            timestamps=is_true(query, "timestamps"),
            tail_lines=integer(query, "tailLines") if "tailLines" in query else None,
            limit_bytes=integer(query, "limitBytes") if "limitBytes" in query else None,
        )
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        prepared = False
        try:
            async for chunk in lines:
                if not prepared:
                    await response.prepare(request)
                    prepared = True
                await response.write(chunk)
            if not prepared:
                await response.prepare(request)
        except ConnectionResetError:
            logger.debug("a log reader went away")
        return response


async def _body(request: web.Request) -> Any:
    raw = await request.read()
    if not raw:
        return {}
    if request.content_type == protobuf.MEDIA_TYPE:
        return protobuf.decode(raw)
    return yaml.safe_load(raw) if "yaml" in request.content_type else json.loads(raw)


def _table(request: web.Request) -> str | None:
    """What a table's rows include, when a table is asked for first."""
    first = request.headers.get("Accept", "").split(",")[0]
    return request.query.get("includeObject", "Metadata") if "as=Table" in first else None


def _partial(request: web.Request, info: ResourceInfo, objects: list[Obj]) -> tuple[str, str, list[Obj]]:
    if "as=PartialObjectMetadata" not in request.headers.get("Accept", "").split(",")[0]:
        return info.kind, info.api_version, objects
    kind, version = "PartialObjectMetadata", "meta.k8s.io/v1"
    return kind, version, [{"kind": kind, "apiVersion": version, "metadata": obj["metadata"]} for obj in objects]


def _reply(
    request: web.Request, info: ResourceInfo, obj: Obj, status: int = 200, warnings: list[str] | None = None
) -> web.Response:
    if (include := _table(request)) is not None:
        shown = tables.build_table(info, [obj], {"resourceVersion": obj["metadata"]["resourceVersion"]}, include)
    else:
        shown = _partial(request, info, [obj])[2][0]
    response = web.json_response(shown, status=status)
    for warning in warnings or []:
        response.headers.add("Warning", f'299 - "{warning.replace(chr(34), chr(92) + chr(34))}"')
    return response


def build_app(registry: Registry, tokens: Tokens, runtime: PodRuntime) -> web.Application:
    """The application that serves a registry."""
    app = web.Application(client_max_size=64 << 20)
    app.router.add_route("*", "/{path:.*}", Server(registry, tokens, runtime).handle)
    return app


async def serve(app: web.Application, port: int, tls: ssl.SSLContext) -> tuple[web.AppRunner, int]:
    """Listen on loopback; returns the runner and the port."""
    runner = web.AppRunner(app, shutdown_timeout=1.0, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port, ssl_context=tls)
    await site.start()
    return runner, runner.addresses[0][1]
