"""Deletion of single children."""

import asyncio

from codetune_operator.cluster.connecting import Cluster
from codetune_operator.cluster.kinds import JOB, kind_of
from codetune_operator.errors import ConflictError, MissingError
from codetune_operator.reconcile.plan import ChildRef


async def delete(cluster: Cluster, *, namespace: str, child: ChildRef) -> bool:
    """Delete a child; a Job goes after its pods, so that a Job that is gone has nobody left who writes to the store.

    Returns:
        Whether it was there: False when it is gone already or was replaced by another object of its name.

    Raises:
        OperatorError: The server refused, or could not be reached.
    """
    path = kind_of(child.api_version, child.kind).path(namespace, child.name)
    policy = "Foreground" if child.kind == JOB.name else "Background"
    options: dict[str, object] = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": policy}
    if child.uid is not None:
        options["preconditions"] = {"uid": child.uid}
    try:
        await asyncio.to_thread(cluster.send, "DELETE", path, body=options)
    except (MissingError, ConflictError):
        return False
    return True
