"""Single objects as they are now."""

import asyncio
from typing import Any

from codetune_operator.cluster.connecting import MERGE_PATCH, Cluster
from codetune_operator.cluster.kinds import CONFIGMAP, NAMESPACE, SECRET, Kind
from codetune_operator.errors import MissingError

Obj = dict[str, Any]

_UNREADABLE = frozenset({CONFIGMAP, SECRET})
"""Kinds that the operator may write but not read."""


async def peek(cluster: Cluster, *, kind: Kind, namespace: str | None, name: str) -> Obj | None:
    """An object, if there is one of this name.

    Where there is no right to read, a patch that changes nothing, as a dry run, is answered with the object too; unlike
    an apply it makes none where there is none.

    Raises:
        OperatorError: The server refused, or could not be reached.
    """
    path = kind.path(namespace, name)
    try:
        if kind in _UNREADABLE:
            dry = {"dryRun": "All"}
            return await asyncio.to_thread(cluster.send, "PATCH", path, query=dry, body={}, content_type=MERGE_PATCH)
        return await asyncio.to_thread(cluster.send, "GET", path)
    except MissingError:
        return None


async def is_ending(cluster: Cluster, *, namespace: str) -> bool:
    """Whether a namespace is being deleted. Raises: OperatorError."""
    found = await peek(cluster, kind=NAMESPACE, namespace=None, name=namespace)
    return found is not None and bool(found["metadata"].get("deletionTimestamp"))
