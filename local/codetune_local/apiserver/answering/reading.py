"""GET of objects: one, a list in pages, a watch."""

import logging
from typing import Any

from aiohttp import web

from codetune_local.apiserver.answering import tables, watching
from codetune_local.apiserver.answering.calls import Call, reply, shape, table_rows
from codetune_local.apiserver.answering.requests import integer, is_true
from codetune_local.apiserver.errors import ApiError, invalid, too_large

logger = logging.getLogger(__name__)
Obj = dict[str, Any]


async def read(call: Call) -> web.StreamResponse:
    """Answer a GET. Raises: ApiError."""
    _check_options(call)
    if is_true(call.request.query, "watch"):
        return await _watch(call)
    return reply(call, call.stored()) if call.target.name else _list(call)


def _check_options(call: Call) -> None:
    """The parameters that depend on one another, as documented for lists and watches."""
    query = call.request.query
    match, version = query.get("resourceVersionMatch", ""), query.get("resourceVersion", "")
    wants_initial = is_true(query, "sendInitialEvents")
    why = ""
    if version and not version.isdigit():
        _refuse("resourceVersion", "FieldValueInvalid", f'Invalid value: "{version}": must be a number')
    if wants_initial and match != "NotOlderThan":
        why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
    elif match and not version and not wants_initial:
        why = "resourceVersionMatch is forbidden unless resourceVersion is provided"
    elif match not in ("", "Exact", "NotOlderThan"):
        _refuse("resourceVersionMatch", "FieldValueNotSupported", f'Unsupported value: "{match}"')
    if why:
        _refuse("resourceVersionMatch", "FieldValueForbidden", f"Forbidden: {why}")
    current = call.registry.storage.version
    if version and int(version) > current and not is_true(query, "watch"):
        raise too_large(int(version), current)


def _refuse(field: str, reason: str, message: str) -> None:
    raise invalid("ListOptions", "meta.k8s.io", "", [(field, reason, message)])


def _list(call: Call) -> web.Response:
    query, info = call.request.query, call.info
    found = watching.select(call.registry, call.selection())
    part = watching.page(found, integer(query, "limit"), query.get("continue", ""), call.registry.storage.version)
    metadata: Obj = {"resourceVersion": str(part.version)}
    if part.token:
        metadata["continue"] = part.token
        if not query.get("labelSelector") and not query.get("fieldSelector"):
            metadata["remainingItemCount"] = part.remaining
    if (include := table_rows(call.request)) is not None:
        return web.json_response(tables.build_table(info, part.objects, metadata, include))
    kind, version, items = shape(call.request, info, part.objects)
    return web.json_response({"kind": f"{kind}List", "apiVersion": version, "metadata": metadata, "items": items})


async def _watch(call: Call) -> web.StreamResponse:
    query = call.request.query
    version, initial = query.get("resourceVersion", ""), is_true(query, "sendInitialEvents")
    seconds = integer(query, "timeoutSeconds")
    events = watching.watch(
        call.registry,
        call.selection(),
        since=None if version in ("", "0") or initial else int(version),
        bookmarks=is_true(query, "allowWatchBookmarks"),
        mark_initial=initial,
        seconds=float(seconds) if seconds else None,
    )
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(call.request)
    has_headers = False
    try:
        async for event in events:
            shown = _shape_event(call, event, headers=not has_headers)
            has_headers = has_headers or event["type"] != "BOOKMARK"
            await response.write(watching.encode({"type": event["type"], "object": shown}))
    except ApiError as error:
        await response.write(watching.encode({"type": "ERROR", "object": error.status()}))
    except ConnectionResetError:
        logger.debug("a watch on %s ended with its client", call.info.key)
    return response


def _shape_event(call: Call, event: Obj, *, headers: bool) -> Obj:
    obj: Obj = event["object"]
    include = table_rows(call.request)
    if include is None:
        return obj if event["type"] == "BOOKMARK" else shape(call.request, call.info, [obj])[2][0]
    if event["type"] == "BOOKMARK":
        return tables.build_bookmark(obj["metadata"])
    version = {"resourceVersion": obj["metadata"]["resourceVersion"]}
    return tables.build_table(call.info, [obj], version, include, headers=headers)
