"""The parts of objects that are no objects: logs, proxies, scales, tokens, bindings, evictions."""

import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from aiohttp import web

from codetune_local.apiserver.access.authorizing import Tokens
from codetune_local.apiserver.answering import proxying, reviews
from codetune_local.apiserver.answering.calls import Call, read_body
from codetune_local.apiserver.answering.requests import delete_options, integer, is_true
from codetune_local.apiserver.answering.scaling import read_scale, write_scale
from codetune_local.apiserver.errors import ApiError, bad_request

logger = logging.getLogger(__name__)
Obj = dict[str, Any]
SEPARATE = ("log", "proxy", "binding", "eviction", "token", "scale", "exec", "attach", "portforward")
"""Subresources that are not another view of the object itself, as status and finalize are."""


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


async def answer(call: Call, tokens: Tokens, runtime: PodRuntime) -> web.StreamResponse:
    """Answer a request for one of `SEPARATE`. Raises: ApiError."""
    subresource = call.target.subresource
    if subresource == "log":
        call.expect("GET")
        return await _log(call, runtime)
    if subresource == "proxy":
        return await proxying.forward(call.request, call.info, call.target, call.registry)
    if subresource == "scale":
        call.expect("GET", "PUT", "PATCH")
        if call.request.method == "GET":
            return web.json_response(read_scale(call.info, call.stored()))
        return web.json_response(await write_scale(call.request, call.info, call.target, call.registry))
    if subresource in ("exec", "attach", "portforward"):
        text = f"the local cluster does not offer {subresource}: pods are plain processes of this machine"
        raise ApiError(501, "NotImplemented", text)
    call.expect("POST")
    if subresource == "token":
        return reviews.issue_token(call.stored(), await read_body(call.request), tokens)
    await (_evict(call) if subresource == "eviction" else _bind(call))
    return web.json_response({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}, status=201)


async def _evict(call: Call) -> None:
    body = await read_body(call.request)
    options = delete_options((body or {}).get("deleteOptions"), {}, "Pod")
    call.registry.delete(call.info, call.namespace, call.target.name, dry_run=call.dry_run, **options)


async def _bind(call: Call) -> None:
    node = ((await read_body(call.request)).get("target") or {}).get("name")
    if not node:
        raise bad_request("target.name: Required value: the node to bind the pod to")
    pod = call.stored()
    if pod["spec"].get("nodeName"):
        text = f"pod {call.target.name} is already assigned to node {pod['spec']['nodeName']!r}"
        raise ApiError(409, "Conflict", f'Operation cannot be fulfilled on pods/binding "{call.target.name}": {text}')

    def change(live: Obj) -> Obj:
        return {**live, "spec": {**live["spec"], "nodeName": node}}

    call.registry.modify(call.info, call.namespace, call.target.name, change, dry_run=call.dry_run)


async def _log(call: Call, runtime: PodRuntime) -> web.StreamResponse:
    query, pod = call.request.query, call.stored()
    lines = runtime.read_log(
        pod,
        _container(pod, query.get("container", "")),
        follow=is_true(query, "follow"),
        previous=is_true(query, "previous"),
        since_time=_since(call),
        timestamps=is_true(query, "timestamps"),
        tail_lines=integer(query, "tailLines") if "tailLines" in query else None,
        limit_bytes=integer(query, "limitBytes") if "limitBytes" in query else None,
    )
    response = web.StreamResponse(headers={"Content-Type": "text/plain"})
    try:
        async for chunk in lines:
            if not response.prepared:  # until then, an error of the runtime is still a Status
                await response.prepare(call.request)
            await response.write(chunk)
        if not response.prepared:
            await response.prepare(call.request)
    except ConnectionResetError:
        logger.debug("a log reader went away")
    return response


def _container(pod: Obj, asked: str) -> str:
    name = pod["metadata"]["name"]
    main = [found["name"] for found in pod["spec"].get("containers") or []]
    names = main + [found["name"] for found in pod["spec"].get("initContainers") or []]
    if not asked and len(main) > 1:
        text = f"a container name must be specified for pod {name}, choose one of: [{' '.join(main)}]"
        raise bad_request(text)
    container: str = asked or main[0]
    if container not in names:
        raise bad_request(f"container {container} is not valid for pod {name}")
    return container


def _since(call: Call) -> datetime | None:
    query = call.request.query
    if query.get("sinceSeconds"):
        return datetime.now(UTC) - timedelta(seconds=integer(query, "sinceSeconds"))
    if not query.get("sinceTime"):
        return None
    try:
        return datetime.fromisoformat(query["sinceTime"])
    except ValueError as error:
        raise bad_request(f"sinceTime={query['sinceTime']!r} is not an RFC 3339 time") from error
