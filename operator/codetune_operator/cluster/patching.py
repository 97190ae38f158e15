"""Changes of a resource's own status and finalizers: merge patches, only against the version that was observed."""

import asyncio
from collections.abc import Sequence
from typing import Any

from codetune_api.metadata import FINALIZER

from codetune_operator.cluster.connecting import MERGE_PATCH, Cluster
from codetune_operator.cluster.kinds import kind_of
from codetune_operator.errors import MissingError

Obj = dict[str, Any]


async def patch_status(cluster: Cluster, *, live: Obj, status: Obj) -> Obj | None:
    """Write a status, if it differs from the one of the observed object.

    Returns:
        The object as it is now, or None when there was nothing to write.

    Raises:
        ConflictError: The object has changed since it was observed.
        OperatorError: The server refused, or could not be reached.
    """
    before = live.get("status") or {}
    if before == status:
        return None
    return await _patch(cluster, live, {"status": build_merge_patch(before, status)}, subresource="status")


async def patch_finalizers(cluster: Cluster, *, live: Obj, finalizers: Sequence[str]) -> Obj:
    """Write the list of finalizers.

    Raises:
        ConflictError: The object has changed since it was observed.
        OperatorError: The server refused, or could not be reached.
    """
    return await _patch(cluster, live, {"metadata": {"finalizers": list(finalizers)}})


async def drop_finalizer(cluster: Cluster, *, live: Obj) -> Obj | None:
    """Take Codetune's finalizer off.

    Returns:
        The object as it is now, or None when it has none, or is gone.

    Raises:
        ConflictError: The object has changed since it was observed.
        OperatorError: The server refused, or could not be reached.
    """
    present = live["metadata"].get("finalizers") or []
    if FINALIZER not in present:
        return None
    try:
        return await patch_finalizers(cluster, live=live, finalizers=[entry for entry in present if entry != FINALIZER])
    except MissingError:
        # Somebody else let it go.
        return None


def build_merge_patch(before: Obj, after: Obj) -> Obj:
    """The JSON merge patch (RFC 7386) that turns one object into another: what goes away is null."""
    patch: Obj = {key: None for key in before if key not in after}
    for key, value in after.items():
        old = before.get(key)
        if isinstance(value, dict) and isinstance(old, dict):
            if nested := build_merge_patch(old, value):
                patch[key] = nested
        elif key not in before or old != value:
            patch[key] = value
    return patch


async def _patch(cluster: Cluster, live: Obj, patch: Obj, subresource: str | None = None) -> Obj:
    metadata = live["metadata"]
    path = kind_of(live["apiVersion"], live["kind"]).path(metadata["namespace"], metadata["name"], subresource)
    guarded = {
        **patch,
        "metadata": {**patch.get("metadata", {}), "resourceVersion": metadata["resourceVersion"]},
    }
    return await asyncio.to_thread(cluster.send, "PATCH", path, body=guarded, content_type=MERGE_PATCH)
