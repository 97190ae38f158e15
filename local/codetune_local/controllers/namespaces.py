"""Ending a namespace: everything in it is deleted, the pods first, and what holds it up is said in its conditions."""

from collections import Counter
from collections.abc import Mapping
from datetime import datetime

from codetune_local.machinery.client import ApiError, Client
from codetune_local.machinery.executing import delete_if_same, write_status
from codetune_local.machinery.looping import Controller, itself
from codetune_local.machinery.objects import Key, Obj, finalizers_of, is_being_deleted, name_of, set_condition, uid_of
from codetune_local.machinery.reading import get_or_none
from codetune_local.machinery.times import Clock, utc_now

FINALIZER = "kubernetes"
LOOK_AGAIN = 0.5
"""Seconds between two looks at a namespace that still has something in it."""


def namespace_controller(client: Client, clock: Clock = utc_now) -> Controller:
    """Empties and ends namespaces that were deleted."""

    async def reconcile(key: Key) -> float | None:
        namespace = await get_or_none(client, "namespaces", key[1])
        if namespace is None or not is_being_deleted(namespace):
            return None
        left, problems = await _delete_content(client, name_of(namespace))
        if left or problems:
            await _say_what_is_left(client, namespace, left, problems, clock())
            return LOOK_AGAIN
        await _finalize(client, namespace)
        return None

    return Controller("namespace", {"namespaces": itself}, reconcile)


async def _delete_content(client: Client, namespace: str) -> tuple[dict[str, list[Obj]], list[str]]:
    """Delete what is there; returns what is left by resource, and what could not be deleted."""
    left: dict[str, list[Obj]] = {}
    problems: list[str] = []
    served = [info.key for info in client.resources() if info.namespaced]
    for resource in sorted(served, key=lambda key: key != "pods"):
        if resource != "pods" and "pods" in left:
            continue  # what pods use outlives them
        try:
            found = await client.list(resource, namespace)
        except ApiError as error:
            if error.code not in (404, 405):
                problems.append(f"{resource}: {error.message}")
            continue
        for obj in found:
            if is_being_deleted(obj):
                continue
            try:
                await delete_if_same(client, resource, namespace, name_of(obj), uid_of(obj))
            except ApiError as error:
                problems.append(f"{resource} {name_of(obj)}: {error.message}")
        if found and (remaining := await client.list(resource, namespace)):
            left[resource] = remaining
    return left, problems


async def _say_what_is_left(
    client: Client, namespace: Obj, left: Mapping[str, list[Obj]], problems: list[str], now: datetime
) -> None:
    status = build_namespace_status(namespace, left, problems, now)
    await write_status(client, "namespaces", "", name_of(namespace), uid_of(namespace), lambda _: status)


def build_namespace_status(namespace: Obj, left: Mapping[str, list[Obj]], problems: list[str], now: datetime) -> Obj:
    """Status of a namespace that is going. Pure."""
    counts = ", ".join(
        f"{resource} has {len(objects)} resource instances" for resource, objects in sorted(left.items())
    )
    held = Counter(finalizer for objects in left.values() for obj in objects for finalizer in finalizers_of(obj))
    holders = ", ".join(f"{finalizer} in {count} resource instances" for finalizer, count in sorted(held.items()))
    entries = [
        (
            "NamespaceDeletionContentFailure",
            bool(problems),
            ("ContentDeletionFailed", "Failed to delete all resource types: " + "; ".join(problems)[:800]),
            ("ContentDeleted", "All content successfully deleted, may be waiting on finalization"),
        ),
        (
            "NamespaceContentRemaining",
            bool(left),
            ("SomeResourcesRemain", f"Some resources are remaining: {counts}"),
            ("ContentRemoved", "All content successfully removed"),
        ),
        (
            "NamespaceFinalizersRemaining",
            bool(held),
            ("SomeFinalizersRemain", f"Some content in the namespace has finalizers remaining: {holders}"),
            ("ContentHasNoFinalizers", "All content-preserving finalizers finished"),
        ),
    ]
    status = dict(namespace.get("status") or {})
    conditions: list[Obj] = status.get("conditions") or []
    for kind, is_true, yes, no in entries:
        reason, message = yes if is_true else no
        conditions = set_condition(conditions, kind, str(is_true), now=now, reason=reason, message=message)
    return {**status, "phase": "Terminating", "conditions": conditions}


async def _finalize(client: Client, namespace: Obj) -> None:
    """Take our finalizer off its spec; the API server then removes it."""
    current = await get_or_none(client, "namespaces", name_of(namespace))
    if current is None or uid_of(current) != uid_of(namespace):
        return
    spec = current.get("spec") or {}
    kept = [finalizer for finalizer in spec.get("finalizers") or [] if finalizer != FINALIZER]
    await client.update("namespaces", {**current, "spec": {**spec, "finalizers": kept}}, subresource="finalize")
