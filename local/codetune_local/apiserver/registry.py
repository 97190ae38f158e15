"""Create, read, update, delete: the rules that hold for every resource, whoever asks."""

import copy
import secrets
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from codetune_local.apiserver import applying, preparing
from codetune_local.apiserver.catalog import BUILTIN, ResourceInfo, custom_resources
from codetune_local.apiserver.errors import (
    STALE,
    ApiError,
    already_exists,
    bad_request,
    conflict,
    forbidden,
    no_such_route,
    not_found,
)
from codetune_local.apiserver.schemas import schema_of
from codetune_local.apiserver.storage import Storage

Obj = dict[str, Any]
_SUFFIX = "bcdfghjklmnpqrstvwxz2456789"
DEFINITIONS = "customresourcedefinitions.apiextensions.k8s.io"
_SERVER_SET = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation")


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
        return "events" if info.kind == "Event" else info.key

    # -- reading

    def get(self, info: ResourceInfo, namespace: str, name: str) -> Obj:
        """A copy of an object. Raises: ApiError (404)."""
        found = self.storage.get(self.store_key(info), namespace, name)
        if found is None:
            raise not_found(info.plural, info.group, name)
        return self.present(info, found)

    def present(self, info: ResourceInfo, obj: Obj) -> Obj:
        """A copy as this version of the API shows it."""
        shown = copy.deepcopy(obj)
        shown["apiVersion"], shown["kind"] = info.api_version, info.kind
        if info.custom is not None:
            preparing.apply_defaults(shown, schema_of(info))
        return shown

    # -- writing

    def create(self, info: ResourceInfo, namespace: str, body: Obj, *, manager: str = "", dry_run: bool = False) -> Obj:
        """Store a new object. Raises: ApiError."""
        obj = copy.deepcopy(body)
        preparing.check_type(info, obj)
        metadata = obj["metadata"]
        self._place(info, metadata, namespace)
        for field in (*_SERVER_SET, "resourceVersion", "selfLink"):
            metadata.pop(field, None)
        if not metadata.get("name"):
            if not metadata.get("generateName"):
                raise preparing.invalid(
                    info.kind,
                    info.group,
                    "",
                    [("metadata.name", "FieldValueRequired", "Required value: name or generateName is required")],
                )
            metadata["name"] = metadata["generateName"] + "".join(secrets.choice(_SUFFIX) for _ in range(5))
        self._check_namespace(info, metadata)
        if self.storage.get(self.store_key(info), metadata.get("namespace", ""), metadata["name"]):
            raise already_exists(info.plural, info.group, metadata["name"])
        metadata["uid"], metadata["creationTimestamp"], metadata["generation"] = str(uuid.uuid4()), now(), 1
        if "status" in info.subresources and info.kind != "Namespace":
            obj.pop("status", None)
        preparing.fill_in(info, obj)
        preparing.check(info, obj, None)
        if manager:
            applying.track_update(None, obj, schema_of(info), manager=manager, subresource="", now=now())
        return self._store(info, obj, dry_run)

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
        obj = copy.deepcopy(body)
        preparing.check_type(info, obj)
        if obj["metadata"].setdefault("name", name) != name:
            raise bad_request(
                f"the name of the object ({obj['metadata']['name']}) does not match the name on the URL ({name})"
            )
        return self.modify(
            info, namespace, name, lambda _: obj, subresource=subresource, manager=manager, dry_run=dry_run
        )

    def modify(
        self,
        info: ResourceInfo,
        namespace: str,
        name: str,
        change: Callable[[Obj], Obj],
        *,
        subresource: str = "",
        manager: str = "",
        dry_run: bool = False,
        tracked: bool = True,
    ) -> Obj:
        """Replace an object by what `change` makes of a copy of it. Raises: ApiError."""
        old = self.storage.get(self.store_key(info), namespace, name)
        if old is None:
            raise not_found(info.plural, info.group, name)
        obj = change(copy.deepcopy(old))
        self._check_preconditions(info, obj, old)
        self._carry_over(info, obj, old, subresource)
        preparing.fill_in(info, obj)
        preparing.check(info, obj, old)
        if tracked and manager:
            applying.track_update(old, obj, schema_of(info), manager=manager, subresource=subresource, now=now())
        if _bare(obj) == _bare(old):
            if not tracked and obj["metadata"].get("managedFields") != old["metadata"].get("managedFields"):
                return self._store(info, obj, dry_run)
            return copy.deepcopy(old)
        if _spec_of(obj, info) != _spec_of(old, info):
            obj["metadata"]["generation"] = old["metadata"].get("generation", 1) + 1
        return self._finish(info, self._store(info, obj, dry_run), dry_run)

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
        body["metadata"].setdefault("name", name)
        if body["metadata"].get("managedFields"):
            raise bad_request("metadata.managedFields must be nil")
        if info.namespaced:
            body["metadata"].setdefault("namespace", namespace)
        options: dict[str, Any] = {"manager": manager, "force": force, "subresource": subresource, "now": now()}
        schema = schema_of(info)
        if self.storage.get(self.store_key(info), namespace, name) is None:
            if subresource:
                raise not_found(info.plural, info.group, name)
            fresh = applying.apply(None, body, schema, **options)
            entries = fresh["metadata"].pop("managedFields")
            created = self.create(info, namespace, fresh, dry_run=dry_run)
            created["metadata"]["managedFields"] = entries
            return self._store(info, created, dry_run), True
        applied = self.modify(
            info,
            namespace,
            name,
            lambda live: applying.apply(live, body, schema, **options),
            subresource=subresource,
            tracked=False,
            dry_run=dry_run,
        )
        return applied, False

    def _store(self, info: ResourceInfo, obj: Obj, dry_run: bool) -> Obj:
        if dry_run:
            return obj
        if info.key == DEFINITIONS:
            _establish(obj)
        stored = self.storage.put(self.store_key(info), obj)
        if info.key == DEFINITIONS:
            self._serve(stored)
        return copy.deepcopy(stored)

    def _place(self, info: ResourceInfo, metadata: Obj, namespace: str) -> None:
        if not info.namespaced:
            metadata.pop("namespace", None)
        elif metadata.setdefault("namespace", namespace) != namespace:
            raise bad_request(
                f"the namespace of the provided object does not match the namespace sent on the request ({metadata['namespace']} is not {namespace})"
            )

    def _check_namespace(self, info: ResourceInfo, metadata: Obj) -> None:
        if not info.namespaced:
            return
        found = self.storage.get("namespaces", "", metadata["namespace"])
        if found is None:
            raise not_found("namespaces", "", metadata["namespace"])
        if found["metadata"].get("deletionTimestamp"):
            why = f"unable to create new content in namespace {metadata['namespace']} because it is being terminated"
            error = forbidden(info.plural, info.group, metadata["name"], why)
            error.details = {
                **(error.details or {}),
                "causes": [
                    {
                        "reason": "NamespaceTerminating",
                        "message": f"namespace {metadata['namespace']} is being terminated",
                        "field": "metadata.namespace",
                    }
                ],
            }
            raise error

    def _check_preconditions(self, info: ResourceInfo, obj: Obj, old: Obj) -> None:
        name = old["metadata"]["name"]
        version = obj["metadata"].get("resourceVersion")
        if version and version != old["metadata"]["resourceVersion"]:
            raise conflict(info.plural, info.group, name, STALE)
        uid = obj["metadata"].get("uid")
        if uid and uid != old["metadata"]["uid"]:
            raise conflict(
                info.plural,
                info.group,
                name,
                f"Precondition failed: UID in precondition: {uid}, UID in object meta: {old['metadata']['uid']}",
            )

    def _carry_over(self, info: ResourceInfo, obj: Obj, old: Obj, subresource: str) -> None:
        """What a write can't change stays as it was."""
        if subresource == "status":
            status, entries = obj.get("status"), obj["metadata"].get("managedFields")
            obj.clear()
            obj.update(copy.deepcopy(old))
            obj.pop("status", None)
            if status is not None:
                obj["status"] = status
            if entries is not None:
                obj["metadata"]["managedFields"] = entries
        elif "status" in info.subresources:
            obj.pop("status", None)
            if "status" in old:
                obj["status"] = copy.deepcopy(old["status"])
        for field in (*_SERVER_SET, "namespace"):
            obj["metadata"].pop(field, None)
            if field in old["metadata"]:
                obj["metadata"][field] = old["metadata"][field]
        if info.kind == "Namespace" and subresource != "finalize" and "spec" in old:
            obj["spec"] = copy.deepcopy(old["spec"])
        if info.key == "secrets" and "type" not in obj:
            obj["type"] = old.get("type", "Opaque")
        if info.key == "services" and (old.get("spec") or {}).get("clusterIP"):
            obj["spec"].setdefault("clusterIP", old["spec"]["clusterIP"])
        if info.key == "jobs.batch":
            obj["spec"].setdefault("selector", old["spec"].get("selector"))
        if old["metadata"].get("deletionTimestamp"):
            before = old["metadata"].get("finalizers") or []
            added = [found for found in obj["metadata"].get("finalizers") or [] if found not in before]
            if added:
                raise preparing.invalid(
                    info.kind,
                    info.group,
                    old["metadata"]["name"],
                    [
                        (
                            "metadata.finalizers",
                            "FieldValueForbidden",
                            f"Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers {added}",
                        )
                    ],
                )

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
        old = self.storage.get(self.store_key(info), namespace, name)
        if old is None:
            raise not_found(info.plural, info.group, name)
        for field, wanted in (("uid", uid), ("resourceVersion", resource_version)):
            if wanted and old["metadata"][field] != wanted:
                raise conflict(
                    info.plural,
                    info.group,
                    name,
                    f"Precondition failed: {field} in precondition: {wanted}, {field} in object meta: {old['metadata'][field]}",
                )
        if dry_run:
            return copy.deepcopy(old)
        obj = copy.deepcopy(old)
        finalizers = [
            found for found in obj["metadata"].get("finalizers") or [] if found not in ("orphan", "foregroundDeletion")
        ]
        if propagation == "Foreground":
            finalizers.append("foregroundDeletion")
        elif propagation == "Orphan":
            finalizers.append("orphan")
        elif obj["metadata"].get("deletionTimestamp"):
            finalizers = list(obj["metadata"].get("finalizers") or [])
        obj["metadata"]["finalizers"] = finalizers
        if not finalizers:
            del obj["metadata"]["finalizers"]
        self._mark_deleted(info, obj, grace)
        if self._may_go(info, obj):
            return self._remove(info, namespace, name)
        if _bare(obj) == _bare(old):
            return copy.deepcopy(old)
        obj["metadata"]["generation"] = obj["metadata"].get("generation", 1) + 1
        return self._store(info, obj, False)

    def _mark_deleted(self, info: ResourceInfo, obj: Obj, grace: int | None) -> None:
        metadata = obj["metadata"]
        seconds = 0
        if info.key == "pods" and (obj.get("spec") or {}).get("nodeName"):
            default = obj["spec"].get("terminationGracePeriodSeconds", 30)
            finished = (obj.get("status") or {}).get("phase") in ("Succeeded", "Failed")
            seconds = (0 if finished and grace is None else default) if grace is None else grace
        if "deletionTimestamp" not in metadata:
            metadata["deletionTimestamp"] = now()
            metadata["deletionGracePeriodSeconds"] = seconds
        else:
            metadata["deletionGracePeriodSeconds"] = min(seconds, metadata.get("deletionGracePeriodSeconds", seconds))
        if info.kind == "Namespace":
            obj.setdefault("status", {})["phase"] = "Terminating"

    def _may_go(self, info: ResourceInfo, obj: Obj) -> bool:
        metadata = obj["metadata"]
        if not metadata.get("deletionTimestamp") or metadata.get("finalizers"):
            return False
        if info.kind == "Namespace" and (obj.get("spec") or {}).get("finalizers"):
            return False
        return not metadata.get("deletionGracePeriodSeconds")

    def _finish(self, info: ResourceInfo, obj: Obj, dry_run: bool) -> Obj:
        """An update may have been the last thing that a deletion waited for."""
        if not dry_run and self._may_go(info, obj):
            return self._remove(info, obj["metadata"].get("namespace", ""), obj["metadata"]["name"])
        return obj

    def _remove(self, info: ResourceInfo, namespace: str, name: str) -> Obj:
        last = copy.deepcopy(self.storage.remove(self.store_key(info), namespace, name))
        if info.key == DEFINITIONS:
            group, plural = last["spec"]["group"], last["spec"]["names"]["plural"]
            for found in self.storage.all(f"{plural}.{group}"):
                self.storage.remove(
                    f"{plural}.{group}", found["metadata"].get("namespace", ""), found["metadata"]["name"]
                )
            self._withdraw(group, plural)
        return last


def _establish(definition: Obj) -> None:
    status = definition.setdefault("status", {})
    known = {found["type"] for found in status.get("conditions") or []}
    conditions = status.setdefault("conditions", [])
    for kind, reason, message in (
        ("NamesAccepted", "NoConflicts", "no conflicts found"),
        ("Established", "InitialNamesAccepted", "the initial names have been accepted"),
    ):
        if kind not in known:
            conditions.append(
                {"type": kind, "status": "True", "lastTransitionTime": now(), "reason": reason, "message": message}
            )
    status["acceptedNames"] = definition["spec"]["names"]
    status["storedVersions"] = [version["name"] for version in definition["spec"]["versions"] if version.get("storage")]


def _bare(obj: Obj) -> Obj:
    """The object without what every write changes."""
    metadata = {
        key: value
        for key, value in obj["metadata"].items()
        if key not in ("resourceVersion", "managedFields", "generation")
    }
    return {**obj, "metadata": metadata}


def _spec_of(obj: Obj, info: ResourceInfo) -> Obj:
    skipped = {"metadata", "apiVersion", "kind", *(("status",) if "status" in info.subresources else ())}
    return {key: value for key, value in obj.items() if key not in skipped}


__all__ = ["ApiError", "Registry", "now"]
