"""POST, PUT, PATCH and DELETE of objects."""

from typing import Any

from aiohttp import web

from codetune_local.apiserver.access.authorizing import Attributes
from codetune_local.apiserver.answering import watching
from codetune_local.apiserver.answering.calls import APPLY, Call, read_body, read_checked, reply
from codetune_local.apiserver.answering.decoding import decode_json, decode_yaml, find_duplicates
from codetune_local.apiserver.answering.requests import delete_options, is_true
from codetune_local.apiserver.errors import ApiError, bad_request, forbidden, invalid, method_not_allowed
from codetune_local.apiserver.objects import patching, preparing
from codetune_local.apiserver.objects.schemas import schema_of

Obj = dict[str, Any]
_PATCHES = ("application/json-patch+json", "application/merge-patch+json", "application/strategic-merge-patch+json")
_LASTING = ("default", "kube-system", "kube-public")
"""Namespaces that can't be deleted."""


async def write(call: Call) -> web.StreamResponse:
    """Answer a write. Raises: ApiError."""
    if call.request.method == "DELETE":
        call.expect(*(() if call.target.subresource else ("DELETE",)))
        return await _delete(call)
    warnings: list[str] = []
    if call.request.method == "PATCH":
        obj, is_new = await _patch(call, warnings)
        return reply(call, call.registry.present(call.info, obj), 201 if is_new else 200, warnings)
    call.expect("POST", "PUT")
    body, duplicates = await read_checked(call.request)
    preparing.check_type(call.info, body)
    call.check_fields(body, warnings, duplicates)
    if call.request.method == "POST":
        if call.target.name:
            raise method_not_allowed()
        obj = call.registry.create(call.info, call.namespace, body, manager=call.manager, dry_run=call.dry_run)
        return reply(call, call.registry.present(call.info, obj), 201, warnings)
    if not call.target.name:
        raise method_not_allowed()
    options: dict[str, Any] = {"subresource": call.target.subresource, "dry_run": call.dry_run}
    options["manager"] = "" if call.target.subresource == "finalize" else call.manager
    obj = call.registry.update(call.info, call.namespace, call.target.name, body, **options)
    return reply(call, call.registry.present(call.info, obj), 200, warnings)


# -- patches


async def _patch(call: Call, warnings: list[str]) -> tuple[Obj, bool]:
    """The patched object and whether it is new."""
    kind, raw = call.request.content_type, await call.request.read()
    if kind in APPLY:
        return _apply(call, raw, warnings)
    _check_patch_type(call, kind)
    patch = decode_json(raw)
    duplicates = find_duplicates(patch)

    def change(live: Obj) -> Obj:
        shown = call.registry.present(call.info, live)
        result = _patched(call, kind, shown, patch)
        try:
            call.check_fields(result, warnings, duplicates)
        except ApiError as error:  # the body was in order, what came of it is not
            why = f"Invalid value: {error.message}"
            raise invalid("", "", "", [("patch", "FieldValueInvalid", why)]) from error
        return result

    options: dict[str, Any] = {"manager": call.manager, "dry_run": call.dry_run}
    options["subresource"] = call.target.subresource
    return call.registry.modify(call.info, call.namespace, call.target.name, change, **options), False


def _check_patch_type(call: Call, kind: str) -> None:
    accepted = _PATCHES if call.info.custom is None else _PATCHES[:2]
    if kind not in accepted:
        listed = ", ".join([*accepted, APPLY[0]])
        text = f"the body of the request was in an unknown format - accepted media types include: {listed}"
        raise ApiError(415, "UnsupportedMediaType", text)


def _patched(call: Call, kind: str, shown: Obj, patch: Any) -> Obj:
    if kind == _PATCHES[0]:
        if not isinstance(patch, list):
            raise bad_request("a JSON patch is a list of operations")
        return patching.json_patch(shown, patch)
    if not isinstance(patch, dict):
        raise bad_request("a merge patch is an object")
    if kind == _PATCHES[1]:
        merged: Obj = patching.merge_patch(shown, patch)
        return merged
    result: Obj = patching.strategic_merge_patch(shown, patch, schema_of(call.info))
    return result


def _apply(call: Call, raw: bytes, warnings: list[str]) -> tuple[Obj, bool]:
    query = call.request.query
    body = decode_yaml(raw)
    if not query.get("fieldManager"):
        why = "Required value: is required for apply patch"
        raise invalid("PatchOptions", "meta.k8s.io", "", [("fieldManager", "FieldValueRequired", why)])
    preparing.check_type(call.info, body)
    call.check_fields(body, warnings, [])
    info, name = call.info, call.target.name
    if (
        not call.target.subresource
        and call.registry.storage.get(call.registry.store_key(info), call.namespace, name) is None
    ):
        call.authorize(Attributes("create", info.group, info.plural, call.namespace, name))
    options: dict[str, Any] = {"manager": query["fieldManager"], "force": is_true(query, "force")}
    options |= {"subresource": call.target.subresource, "dry_run": call.dry_run}
    return call.registry.apply(call.info, call.namespace, call.target.name, body, **options)


# -- deletions


async def _delete(call: Call) -> web.Response:
    options = delete_options(await read_body(call.request), call.request.query, call.info.kind)
    if not call.target.name:
        return _delete_collection(call, options)
    info, registry, name = call.info, call.registry, call.target.name
    if info.key == "namespaces" and name in _LASTING:
        raise forbidden(info.plural, info.group, name, "this namespace may not be deleted")
    left = registry.delete(info, call.namespace, name, dry_run=call.dry_run, **options)
    is_gone = registry.storage.get(registry.store_key(info), call.namespace, name) is None
    if not is_gone or info.key == "pods":
        return reply(call, registry.present(info, left))
    group = {"group": info.group} if info.group else {}
    about = {"name": name, **group, "kind": info.plural, "uid": left["metadata"]["uid"]}
    done = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": about}
    return web.json_response(done)


def _delete_collection(call: Call, options: dict[str, Any]) -> web.Response:
    found = watching.select(call.registry, call.selection())
    for obj in found:
        namespace, name = obj["metadata"].get("namespace", ""), obj["metadata"]["name"]
        call.registry.delete(call.info, namespace, name, dry_run=call.dry_run, **options)
    version = {"resourceVersion": str(call.registry.storage.version)}
    listed = {"kind": f"{call.info.kind}List", "apiVersion": call.info.api_version, "metadata": version, "items": found}
    return web.json_response(listed)
