"""Server-side apply of whole objects."""

import asyncio
from typing import Any

from codetune_api.metadata import FIELD_MANAGER

from codetune_operator.cluster.connecting import APPLY_PATCH, Cluster
from codetune_operator.cluster.kinds import kind_of

Obj = dict[str, Any]


async def apply(cluster: Cluster, *, obj: Obj, uid: str | None) -> Obj:
    """Make an object as it should be; what other field owners set besides stays.

    Args:
        cluster: Where.
        obj: The object.
        uid: Of the object that is there: this one alone is changed, also what others have set otherwise, and none is
            made. None: there is none, and one is made.

    Returns:
        The object as the server holds it now.

    Raises:
        OccupiedError: One was made meanwhile, by somebody who wants it otherwise.
        ConflictError: The object is gone, or another one is in its place.
        OperatorError: The server refused, or could not be reached.
    """
    metadata = obj["metadata"]
    path = kind_of(obj["apiVersion"], obj["kind"]).path(metadata["namespace"], metadata["name"])
    query = {"fieldManager": FIELD_MANAGER, "force": "false" if uid is None else "true"}
    body = obj if uid is None else {**obj, "metadata": {**metadata, "uid": uid}}
    return await asyncio.to_thread(cluster.send, "PATCH", path, query=query, body=body, content_type=APPLY_PATCH)
