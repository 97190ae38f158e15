"""Lists of objects, page by page."""

import asyncio
from dataclasses import dataclass
from typing import Any

from codetune_operator.cluster.connecting import Cluster
from codetune_operator.cluster.kinds import Kind

Obj = dict[str, Any]

PAGE = 500
"""Most objects of one answer."""


@dataclass(frozen=True)
class Listing:
    """What was there at one moment."""

    items: tuple[Obj, ...]
    resource_version: str
    """The moment, as the API server counts."""


async def list_objects(
    cluster: Cluster, *, kind: Kind, namespace: str | None = None, labels: str = "", fields: str = ""
) -> Listing:
    """All objects of a kind.

    Args:
        cluster: Where.
        kind: Which kind.
        namespace: Of one namespace only; None: of all.
        labels: Label selector.
        fields: Field selector.

    Raises:
        OperatorError: The server refused, or could not be reached.
    """
    items: list[Obj] = []
    selectors = {"labelSelector": labels, "fieldSelector": fields}
    query = {"limit": str(PAGE), **{name: value for name, value in selectors.items() if value}}
    while True:
        page = await asyncio.to_thread(cluster.send, "GET", kind.path(namespace), query=query)
        # Entries of a list come without their type.
        items += [{"apiVersion": kind.api_version, "kind": kind.name, **item} for item in page.get("items") or []]
        metadata = page.get("metadata", {})
        if not metadata.get("continue"):
            return Listing(tuple(items), str(metadata.get("resourceVersion", "")))
        query["continue"] = metadata["continue"]
