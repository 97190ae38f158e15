"""Deletion of single children."""

import asyncio

from codetune_operator.cluster.connecting import Cluster
from codetune_operator.cluster.kinds import kind_of
from codetune_operator.errors import ConflictError, MissingError
from codetune_operator.reconcile.plan import ChildRef


async def delete(cluster: Cluster, *, namespace: str, child: ChildRef) -> bool:
    """Delete a child and, in the background, what belongs to it.

    Returns:
        Whether it was there: False when it is gone already or was replaced by another object of its name.

    Raises:
        OperatorError: The server refused, or could not be reached.
    """
    path = kind_of(child.api_version, child.kind).path(namespace, child.name)
    options: dict[str, object] = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
    if child.uid is not None:
        options["preconditions"] = {"uid": child.uid}
    try:
        await asyncio.to_thread(cluster.send, "DELETE", path, body=options)
    except (MissingError, ConflictError):
        return False
    return True
