"""One request for a resource: how its body is read and how its answer is shaped."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from codetune_local.apiserver.access.authorizing import Attributes
from codetune_local.apiserver.answering import protobuf, tables
from codetune_local.apiserver.answering.decoding import decode_json, decode_yaml, find_duplicates
from codetune_local.apiserver.answering.requests import Target, is_dry_run, manager_of
from codetune_local.apiserver.answering.selecting import field_predicate, label_predicate
from codetune_local.apiserver.answering.watching import Selection
from codetune_local.apiserver.catalog import ResourceInfo
from codetune_local.apiserver.errors import method_not_allowed
from codetune_local.apiserver.objects import preparing
from codetune_local.apiserver.registry import Registry

Obj = dict[str, Any]
APPLY = ("application/apply-patch+yaml", "application/apply-patch+json", "application/apply-patch+cbor")


@dataclass(frozen=True)
class Call:
    """A request that was authorized, and what it is about."""

    request: web.Request
    info: ResourceInfo
    target: Target
    registry: Registry
    authorize: Callable[[Attributes], None]
    """Raises: ApiError (403) when the caller may not do this as well."""

    @property
    def namespace(self) -> str:
        """The namespace of the path; empty outside of namespaces."""
        return self.target.namespace or ""

    @property
    def manager(self) -> str:
        """The field manager."""
        return manager_of(self.request.query, self.request.headers.get("User-Agent", ""))

    @property
    def dry_run(self) -> bool:
        """Whether nothing may be stored. Raises: ApiError (400)."""
        return is_dry_run(self.request.query)

    def stored(self) -> Obj:
        """The object that the path names. Raises: ApiError (404)."""
        return self.registry.get(self.info, self.namespace, self.target.name)

    def selection(self) -> Selection:
        """What a list, a watch or a collective deletion is about. Raises: ApiError (400)."""
        fields = self.request.query.get("fieldSelector", "")
        if self.target.name:
            fields = f"metadata.name={self.target.name}" + (f",{fields}" if fields else "")
        labels = label_predicate(self.request.query.get("labelSelector", ""))
        return Selection(self.info, self.target.namespace, labels, field_predicate(self.info, fields))

    def check_fields(self, body: Obj, warnings: list[str], duplicates: list[str]) -> None:
        """Remove unknown fields, and complain as `fieldValidation` says. Raises: ApiError (400) when it is strict."""
        unknown = preparing.find_unknown(self.info, body)
        complaints = [f'unknown field "{path}"' for path in unknown]
        complaints += [f'duplicate field "{path}"' for path in duplicates]
        mode = self.request.query.get("fieldValidation") or "Warn"
        if complaints and mode == "Strict":
            raise preparing.strict_error(self.info, complaints)
        if mode == "Warn":
            warnings += complaints

    def expect(self, *methods: str) -> None:
        """Raises: ApiError (405) when the method is none of these."""
        if self.request.method not in methods:
            raise method_not_allowed()


async def read_body(request: web.Request) -> Any:
    """The decoded body; an empty object when there is none. Raises: ApiError, ValueError."""
    return (await read_checked(request))[0]


async def read_checked(request: web.Request) -> tuple[Any, list[str]]:
    """The decoded body and the paths of fields that it sets twice."""
    raw = await request.read()
    if not raw:
        return {}, []
    if request.content_type == protobuf.MEDIA_TYPE:
        return protobuf.decode(raw), []
    if "yaml" in request.content_type:
        return decode_yaml(raw), []
    body = decode_json(raw)
    return body, find_duplicates(body)


def table_rows(request: web.Request) -> str | None:
    """What a table's rows include, when a table is asked for first."""
    first = request.headers.get("Accept", "").split(",")[0]
    return request.query.get("includeObject", "Metadata") if "as=Table" in first else None


def shape(request: web.Request, info: ResourceInfo, objects: list[Obj]) -> tuple[str, str, list[Obj]]:
    """Kind, version and objects: whole, or their metadata when only that is asked for."""
    if "as=PartialObjectMetadata" not in request.headers.get("Accept", "").split(",")[0]:
        return info.kind, info.api_version, objects
    kind, version = "PartialObjectMetadata", "meta.k8s.io/v1"
    return kind, version, [{"kind": kind, "apiVersion": version, "metadata": obj["metadata"]} for obj in objects]


def reply(call: Call, obj: Obj, status: int = 200, warnings: list[str] | None = None) -> web.Response:
    """The answer with one object, as the request wants it."""
    if (include := table_rows(call.request)) is not None:
        shown = tables.build_table(call.info, [obj], {"resourceVersion": obj["metadata"]["resourceVersion"]}, include)
    else:
        shown = shape(call.request, call.info, [obj])[2][0]
    response = web.json_response(shown, status=status)
    for warning in warnings or []:
        response.headers.add("Warning", f"299 - {json.dumps(warning)}")
    return response
