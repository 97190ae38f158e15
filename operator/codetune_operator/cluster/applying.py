"""Server-side apply of whole objects."""

import asyncio
from typing import Any

from codetune_api.metadata import FIELD_MANAGER

from codetune_operator.cluster.connecting import APPLY_PATCH, Cluster
from codetune_operator.cluster.kinds import kind_of

Obj = dict[str, Any]


async def apply(cluster: Cluster, *, obj: Obj, force: bool) -> Obj:
    """Make an object as it should be; what other field owners set besides stays.

    Args:
        cluster: Where.
        obj: The object.
        force: Take fields over that somebody else has set otherwise.

    Returns:
        The object as the server holds it now.

    Raises:
        OccupiedError: Somebody else has set fields of it otherwise, and they are not taken over.
        OperatorError: The server refused, or could not be reached.
    """
    metadata = obj["metadata"]
    path = kind_of(obj["apiVersion"], obj["kind"]).path(metadata["namespace"], metadata["name"])
    query = {"fieldManager": FIELD_MANAGER, "force": "true" if force else "false"}
    return await asyncio.to_thread(cluster.send, "PATCH", path, query=query, body=obj, content_type=APPLY_PATCH)
