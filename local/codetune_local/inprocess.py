"""The API as controllers and kubelet of the same process use it: full rights, no HTTP, the same rules."""

import copy
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from codetune_local.apiserver.answering.watching import Selection, select, watch
from codetune_local.apiserver.catalog import ResourceInfo
from codetune_local.apiserver.errors import ApiError
from codetune_local.apiserver.objects.patching import merge_patch
from codetune_local.apiserver.registry import Registry

Obj = dict[str, Any]
Objects = list[Obj]
Infos = list[ResourceInfo]
_MANAGER = "codetune-local"

__all__ = ["ApiError", "Client", "Event", "Obj"]


@dataclass(frozen=True)
class Event:
    """One change."""

    type: Literal["ADDED", "MODIFIED", "DELETED"]
    object: Obj


class Client:
    """Reads and writes a registry; resources are named `pods`, `jobs.batch`, `projects.codetune.dev`."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def get(self, resource: str, name: str, namespace: str | None = None) -> Obj:
        """An object. Raises: ApiError."""
        return self._registry.get(self._registry.by_key(resource), namespace or "", name)

    async def list(
        self,
        resource: str,
        namespace: str | None = None,
        labels: Mapping[str, str] | None = None,
        where: Callable[[Obj], bool] = lambda _: True,
    ) -> Objects:
        """Objects that carry all these labels and of which `where` holds, which must leave them as they are.

        What is not asked for is not copied: a controller that looks for one owner's few objects among all costs little.
        """
        return select(self._registry, self._selection(resource, namespace, labels or {}, where))

    def _selection(
        self, resource: str, namespace: str | None, labels: Mapping[str, str], where: Callable[[Obj], bool]
    ) -> Selection:
        info = self._registry.by_key(resource)
        return Selection(info, namespace, lambda found: labels.items() <= found.items(), where)

    async def watch(self, resource: str) -> AsyncIterator[Event]:
        """What is there as ADDED, then every change; never ends by itself."""
        selection = self._selection(resource, None, {}, lambda _: True)
        async for event in watch(
            self._registry, selection, since=None, bookmarks=False, mark_initial=False, seconds=None
        ):
            yield Event(event["type"], event["object"])

    async def create(self, resource: str, obj: Obj) -> Obj:
        """Store a new object. Raises: ApiError."""
        info = self._registry.by_key(resource)
        return self._registry.create(info, obj["metadata"].get("namespace", ""), obj, manager=_MANAGER)

    async def update(self, resource: str, obj: Obj, subresource: str | None = None) -> Obj:
        """Replace an object, or its status. Raises: ApiError (409 on a stale resourceVersion)."""
        info, metadata = self._registry.by_key(resource), obj["metadata"]
        return self._registry.update(
            info, metadata.get("namespace", ""), metadata["name"], obj, subresource=subresource or "", manager=_MANAGER
        )

    async def merge_patch(
        self, resource: str, name: str, namespace: str | None, patch: Obj, subresource: str | None = None
    ) -> Obj:
        """RFC 7386. Raises: ApiError."""
        return self._registry.modify(
            self._registry.by_key(resource),
            namespace or "",
            name,
            lambda live: merge_patch(live, copy.deepcopy(patch)),
            subresource=subresource or "",
            manager=_MANAGER,
        )

    async def delete(
        self,
        resource: str,
        name: str,
        namespace: str | None = None,
        propagation: str = "Background",
        uid: str | None = None,
        grace_period_seconds: int | None = None,
    ) -> None:
        """Begin or finish a deletion. Raises: ApiError."""
        info = self._registry.by_key(resource)
        self._registry.delete(info, namespace or "", name, propagation=propagation, uid=uid, grace=grace_period_seconds)

    def resources(self) -> Infos:
        """Every served resource, custom ones included."""
        return self._registry.resources()
