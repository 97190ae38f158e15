"""Lists and watches: one consistent view, then every change after it."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from codetune_local.apiserver.catalog import ResourceInfo
from codetune_local.apiserver.errors import bad_request
from codetune_local.apiserver.registry import Registry
from codetune_local.apiserver.storage import Change

Obj = dict[str, Any]
BOOKMARK_SECONDS = 30.0
INITIAL_END = "k8s.io/initial-events-end"


@dataclass(frozen=True)
class Selection:
    """Which objects of a resource somebody asked for."""

    info: ResourceInfo
    namespace: str | None
    labels: Callable[[Obj], bool]
    fields: Callable[[Obj], bool]

    def matches(self, obj: Obj | None) -> bool:
        """Whether an object is selected; None is not."""
        if obj is None or (self.namespace is not None and obj["metadata"].get("namespace", "") != self.namespace):
            return False
        return self.labels(obj["metadata"].get("labels") or {}) and self.fields(obj)


def select(registry: Registry, selection: Selection) -> list[Obj]:
    """The selected objects now."""
    found = registry.storage.all(registry.store_key(selection.info), selection.namespace)
    return [registry.present(selection.info, obj) for obj in found if selection.matches(obj)]


def translate(change: Change, selection: Selection, registry: Registry) -> Obj | None:
    """The event that a watch shows for a change: what leaves the selection is DELETED, what enters it ADDED."""
    if change.resource != registry.store_key(selection.info):
        return None
    is_in, was_in = selection.matches(change.object), selection.matches(change.previous)
    if change.type == "DELETED":
        kind = "DELETED" if is_in or was_in else ""
    else:
        kind = "MODIFIED" if is_in and was_in else "ADDED" if is_in else "DELETED" if was_in else ""
    if not kind:
        return None
    return {"type": kind, "object": registry.present(selection.info, change.object)}


async def watch(
    registry: Registry,
    selection: Selection,
    *,
    since: int | None,
    bookmarks: bool,
    mark_initial: bool,
    seconds: float | None,
) -> AsyncIterator[Obj]:
    """Events from a version on; None: what there is now as ADDED first. Raises: ApiError (410)."""
    loop = asyncio.get_running_loop()
    deadline = None if seconds is None else loop.time() + seconds
    with registry.storage.subscribe() as subscription:
        version = registry.storage.version
        if since is None:
            for obj in select(registry, selection):
                yield {"type": "ADDED", "object": obj}
            if mark_initial:
                yield _bookmark(selection.info, version, {INITIAL_END: "true"})
        else:
            for change in registry.storage.since(since):
                if change.version <= version and (event := translate(change, selection, registry)):
                    yield event
        while True:
            left = None if deadline is None else deadline - loop.time()
            if left is not None and left <= 0:
                return
            try:
                pause = BOOKMARK_SECONDS if left is None else min(left, BOOKMARK_SECONDS)
                change = await asyncio.wait_for(subscription.queue.get(), pause)
            except TimeoutError:
                if bookmarks:
                    yield _bookmark(selection.info, registry.storage.version, {})
                continue
            if change.version > version and (event := translate(change, selection, registry)):
                yield event


def _bookmark(info: ResourceInfo, version: int, annotations: dict[str, str]) -> Obj:
    metadata: Obj = {"resourceVersion": str(version), "creationTimestamp": None}
    if annotations:
        metadata["annotations"] = annotations
    return {"type": "BOOKMARK", "object": {"kind": info.kind, "apiVersion": info.api_version, "metadata": metadata}}


def encode(event: Obj) -> bytes:
    """One line of a watch."""
    return json.dumps(event, separators=(",", ":")).encode() + b"\n"


@dataclass(frozen=True)
class Page:
    """A part of a list."""

    objects: list[Obj]
    token: str
    """Where the next part begins; empty after the last."""
    remaining: int
    version: int
    """That of the first part: a client watches from there."""


def page(objects: list[Obj], limit: int, token: str, version: int) -> Page:
    """A part of a list that is in the order of namespace and name. Raises: ApiError (400) for a token that is none."""
    if token:
        version, last = _decode_token(token)
        objects = [obj for obj in objects if _key(obj) > last]
    if not limit or limit >= len(objects):
        return Page(objects, "", 0, version)
    shown = objects[:limit]
    return Page(shown, _encode_token(version, _key(shown[-1])), len(objects) - limit, version)


def _key(obj: Obj) -> tuple[str, str]:
    return obj["metadata"].get("namespace", ""), obj["metadata"]["name"]


def _encode_token(version: int, last: tuple[str, str]) -> str:
    content = {"v": "meta.k8s.io/v1", "rv": version, "start": list(last)}
    return base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")


def _decode_token(token: str) -> tuple[int, tuple[str, str]]:
    try:
        content = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        namespace, name = content["start"]
        return int(content["rv"]), (str(namespace), str(name))
    except (ValueError, KeyError, TypeError) as error:
        raise bad_request(f"continue key is not valid: {error}") from error
