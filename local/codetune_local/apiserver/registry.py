"""Create, read, update, delete: the rules that hold for every resource, whoever asks."""

import secrets
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from codetune_local.apiserver.catalog import BUILTIN, ResourceInfo, custom_resources
from codetune_local.apiserver.errors import (
    ApiError,
    already_exists,
    bad_request,
    conflict,
    invalid,
    method_not_allowed,
    namespace_terminating,
    no_such_route,
    not_found,
    unexplained,
)
from codetune_local.apiserver.objects import applying, definitions, deleting, eventing, preparing
from codetune_local.apiserver.objects.carrying import (
    SERVER_SET,
    carry_over,
    check_deletion_preconditions,
    check_preconditions,
)
from codetune_local.apiserver.objects.definitions import DEFINITIONS
from codetune_local.apiserver.objects.schemas import schema_of
from codetune_local.apiserver.objects.structural import apply_defaults
from codetune_local.apiserver.storage import Storage
from codetune_local.machinery.copying import copy_object

Obj = dict[str, Any]
Change = Callable[[Obj], Obj]
_SUFFIX = "bcdfghjklmnpqrstvwxz2456789"


def now() -> str:
    """This second, as Kubernetes writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Registry:
    """All served resources and their objects."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self._infos: dict[tuple[str, str, str], ResourceInfo] = {}
        for info in BUILTIN:
            self._infos[info.group, info.version, info.plural] = info
        for definition in storage.all(DEFINITIONS):
            self._serve(definition)

    @classmethod
    def open(cls, path: Path | None) -> "Registry":
        """The registry of a state file; None keeps everything in memory."""
        return cls(Storage(path))

    # -- what is served

    def resources(self) -> list[ResourceInfo]:
        """Every served resource."""
        return list(self._infos.values())

    def find(self, group: str, version: str, plural: str) -> ResourceInfo:
        """The served resource of a route. Raises: ApiError (404)."""
        info = self._infos.get((group, version, plural))
        if info is None:
            raise no_such_route()
        return info

    def by_key(self, key: str) -> ResourceInfo:
        """The served resource with the key `jobs.batch`. Raises: ApiError (404)."""
        for info in self._infos.values():
            if info.key == key:
                return info
        raise no_such_route()

    def _serve(self, definition: Obj) -> None:
        group, plural = definition["spec"]["group"], definition["spec"]["names"]["plural"]
        self._withdraw(group, plural)
        for info in custom_resources(definition):
            self._infos[info.group, info.version, info.plural] = info

    def _withdraw(self, group: str, plural: str) -> None:
        for key in [key for key in self._infos if key[0] == group and key[2] == plural]:
            del self._infos[key]

    def store_key(self, info: ResourceInfo) -> str:
        """Both event APIs show the same objects."""
        return "events" if info.kind == "Event" and info.custom is None else info.key

    # -- reading

    def get(self, info: ResourceInfo, namespace: str, name: str) -> Obj:
        """A copy of an object. Raises: ApiError (404)."""
        return self.present(info, self._stored(info, namespace, name))

    def _stored(self, info: ResourceInfo, namespace: str, name: str) -> Obj:
        found = self.storage.get(self.store_key(info), namespace, name)
        if found is None:
            raise not_found(info.plural, info.group, name)
        return found

    def present(self, info: ResourceInfo, obj: Obj) -> Obj:
        """A copy as this version of the API shows it."""
        shown = copy_object(obj)
        if info.group == eventing.GROUP:
            shown = eventing.from_core(shown)
        shown["apiVersion"], shown["kind"] = info.api_version, info.kind
        if info.custom is not None:
            apply_defaults(shown, schema_of(info))
        return shown

    # -- writing

    def _as_stored(self, info: ResourceInfo, obj: Obj) -> tuple[ResourceInfo, Obj]:
        """The form in which an object is stored, where it has two."""
        if info.group != eventing.GROUP:
            return info, obj
        return self.by_key("events"), eventing.to_core(obj)

    def create(
        self,
        info: ResourceInfo,
        namespace: str,
        body: Obj,
        *,
        manager: str = "",
        dry_run: bool = False,
        tracked: bool = True,
    ) -> Obj:
        """Store a new object. Raises: ApiError.

        Args:
            tracked: Whether `manager` is noted as the owner of its fields; False keeps the managedFields of `body`.
        """
        obj = copy_object(body)
        preparing.check_type(info, obj)
        info, obj = self._as_stored(info, obj)
        if obj["metadata"].get("resourceVersion"):
            raise unexplained("resourceVersion should not be set on objects to be created")
        self._place(info, obj["metadata"], namespace)
        for field in (*SERVER_SET, "resourceVersion", "selfLink", *(("managedFields",) if tracked else ())):
            obj["metadata"].pop(field, None)
        self._name(info, obj["metadata"])
        self._check_room(info, obj["metadata"])
        obj["metadata"] |= {"uid": str(uuid.uuid4()), "creationTimestamp": now(), "generation": 1}
        if "status" in info.subresources and info.kind != "Namespace":
            obj.pop("status", None)
        preparing.fill_in(info, obj)
        preparing.check(info, obj, None)
        if manager and tracked:
            applying.track_update(None, obj, schema_of(info), manager=manager, subresource="", now=now())
        return self._store(info, obj, dry_run)

    def _name(self, info: ResourceInfo, metadata: Obj) -> None:
        if metadata.get("name"):
            return
        if not metadata.get("generateName"):
            cause = ("metadata.name", "FieldValueRequired", "Required value: name or generateName is required")
            raise invalid(info.kind, info.group, "", [cause])
        metadata["name"] = metadata["generateName"] + "".join(secrets.choice(_SUFFIX) for _ in range(5))

    def _place(self, info: ResourceInfo, metadata: Obj, namespace: str) -> None:
        if not info.namespaced:
            metadata.pop("namespace", None)
            return
        if not metadata.get("namespace"):
            metadata["namespace"] = namespace
        if metadata["namespace"] != namespace:
            why = "the namespace of the provided object does not match the namespace sent on the request"
            raise bad_request(f"{why} ({metadata['namespace']} is not {namespace})")

    def _check_room(self, info: ResourceInfo, metadata: Obj) -> None:
        """The namespace must be there and stay, the name be free, the definition not be ending."""
        namespace, name = metadata.get("namespace", ""), metadata["name"]
        if info.namespaced:
            found = self.storage.get("namespaces", "", namespace)
            if found is None:
                raise not_found("namespaces", "", namespace)
            if found["metadata"].get("deletionTimestamp"):
                raise namespace_terminating(info.plural, info.group, name, namespace)
        if info.custom is not None and definitions.is_terminating(self.storage.get(DEFINITIONS, "", info.key)):
            raise method_not_allowed("create not allowed while custom resource definition is terminating")
        if self.storage.get(self.store_key(info), namespace, name):
            raise already_exists(info.plural, info.group, name)

    def update(
        self,
        info: ResourceInfo,
        namespace: str,
        name: str,
        body: Obj,
        *,
        subresource: str = "",
        manager: str = "",
        dry_run: bool = False,
    ) -> Obj:
        """Replace an object or its status. Raises: ApiError."""
        obj = copy_object(body)
        preparing.check_type(info, obj)
        if obj["metadata"].setdefault("name", name) != name:
            given = obj["metadata"]["name"]
            raise bad_request(f"the name of the object ({given}) does not match the name on the URL ({name})")
        self._stored(info, namespace, name)
        if info.custom is not None and not obj["metadata"].get("resourceVersion"):
            why = "Invalid value: 0x0: must be specified for an update"
            raise invalid(info.plural, info.group, name, [("metadata.resourceVersion", "FieldValueInvalid", why)])
        options: dict[str, Any] = {"subresource": subresource, "manager": manager, "dry_run": dry_run}
        return self.modify(info, namespace, name, lambda _: obj, **options)

    def modify(
        self,
        info: ResourceInfo,
        namespace: str,
        name: str,
        change: Change,
        *,
        subresource: str = "",
        manager: str = "",
        dry_run: bool = False,
        tracked: bool = True,
    ) -> Obj:
        """Replace an object by what `change` makes of a copy of it. Raises: ApiError."""
        old = self._stored(info, namespace, name)
        info, obj = self._as_stored(info, change(copy_object(old)))
        check_preconditions(info, obj, old)
        carry_over(info, obj, old, subresource)
        preparing.fill_in(info, obj)
        preparing.check(info, obj, old)
        if tracked and manager:
            applying.track_update(old, obj, schema_of(info), manager=manager, subresource=subresource, now=now())
        if _bare(obj) == _bare(old):
            if not applying.same_owners(obj, old):
                return self._store(info, obj, dry_run)
            return copy_object(old)
        if _spec_of(obj, info) != _spec_of(old, info):
            obj["metadata"]["generation"] = old["metadata"].get("generation", 1) + 1
        if not dry_run and deleting.may_go(info, obj):  # it was the last thing that a deletion waited for
            self._remove(info, namespace, name)
            obj["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"]
            return obj  # what was asked for, which was never stored: of the version that was before
        return self._store(info, obj, dry_run)

    def apply(
        self,
        info: ResourceInfo,
        namespace: str,
        name: str,
        body: Obj,
        *,
        manager: str,
        force: bool,
        subresource: str = "",
        dry_run: bool = False,
    ) -> tuple[Obj, bool]:
        """Server-side apply; returns the object and whether it was created. Raises: ApiError."""
        preparing.check_type(info, body)
        info, body = self._as_stored(info, body)
        body["metadata"].setdefault("name", name)
        if body["metadata"].get("managedFields"):
            raise bad_request("metadata.managedFields must be nil")
        if info.namespaced:
            body["metadata"].setdefault("namespace", namespace)
        options: dict[str, Any] = {"manager": manager, "force": force, "subresource": subresource, "now": now()}
        schema = schema_of(info)

        def change(live: Obj) -> Obj:
            return applying.apply(live, body, schema, **options)

        if self.storage.get(self.store_key(info), namespace, name) is None:
            if subresource:
                raise not_found(info.plural, info.group, name)
            if uid := body["metadata"].get("uid"):
                why = f"uid mismatch: the provided object specified uid {uid}, and no existing object was found"
                raise conflict(info.plural, info.group, name, why)
            fresh = applying.apply(None, body, schema, **options)
            return self.create(info, namespace, fresh, dry_run=dry_run, tracked=False), True
        more: dict[str, Any] = {"subresource": subresource, "tracked": False, "dry_run": dry_run}
        return self.modify(info, namespace, name, change, **more), False

    def _store(self, info: ResourceInfo, obj: Obj, dry_run: bool) -> Obj:
        if info.key == DEFINITIONS:
            definitions.establish(obj, now())
        if dry_run:
            return obj
        stored = self.storage.put(self.store_key(info), obj)
        if info.key == DEFINITIONS:
            self._serve(stored)
        return copy_object(stored)

    # -- deleting

    def delete(
        self,
        info: ResourceInfo,
        namespace: str,
        name: str,
        *,
        propagation: str = "Background",
        uid: str | None = None,
        resource_version: str | None = None,
        grace: int | None = None,
        dry_run: bool = False,
    ) -> Obj:
        """Begin or finish a deletion; returns the object as it then is. Raises: ApiError."""
        old = self._stored(info, namespace, name)
        check_deletion_preconditions(info, old, uid, resource_version)
        if dry_run:
            return copy_object(old)
        obj = copy_object(old)
        deleting.mark_deleted(info, obj, propagation=propagation, grace=grace, now=now())
        if deleting.may_go(info, obj):
            return self._remove(info, namespace, name)
        if _bare(obj) == _bare(old):
            return copy_object(old)
        obj["metadata"]["generation"] = obj["metadata"].get("generation", 1) + 1
        stored = self._store(info, obj, False)
        if info.key == DEFINITIONS:
            self._clean_up(name)
        return stored

    def _clean_up(self, name: str) -> None:
        """Delete the objects of a definition that is ending; it goes when the last of them has gone."""
        info = next((info for info in self._infos.values() if info.key == name), None)
        for found in self.storage.all(name) if info is not None else []:
            if info is not None and not found["metadata"].get("deletionTimestamp"):
                self.delete(info, found["metadata"].get("namespace", ""), found["metadata"]["name"])
        self._release(name)

    def _release(self, name: str) -> None:
        definition = self.storage.get(DEFINITIONS, "", name)
        if definition is None or not definitions.is_terminating(definition) or self.storage.all(name):
            return
        left = [found for found in definition["metadata"].get("finalizers") or [] if found != definitions.CLEANUP]
        patched = {**definition, "metadata": {**definition["metadata"], "finalizers": left}}
        self.modify(self.by_key(DEFINITIONS), "", name, lambda _: copy_object(patched))

    def _remove(self, info: ResourceInfo, namespace: str, name: str) -> Obj:
        last = copy_object(self.storage.remove(self.store_key(info), namespace, name))
        if info.key == DEFINITIONS:
            self._withdraw(last["spec"]["group"], last["spec"]["names"]["plural"])
        elif info.custom is not None:
            self._release(info.key)
        return last


def _bare(obj: Obj) -> Obj:
    """The object without what every write changes."""
    skipped = ("resourceVersion", "managedFields", "generation")
    return {**obj, "metadata": {key: value for key, value in obj["metadata"].items() if key not in skipped}}


def _spec_of(obj: Obj, info: ResourceInfo) -> Obj:
    skipped = {"metadata", "apiVersion", "kind", *(("status",) if "status" in info.subresources else ())}
    return {key: value for key, value in obj.items() if key not in skipped}


__all__ = ["ApiError", "Registry", "now"]
