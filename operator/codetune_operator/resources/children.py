"""What every child of a resource has: type, labels, and an owner that it goes with. Pure."""

from collections.abc import Mapping
from typing import Any

from codetune_api.common import Resource

from codetune_operator.resources.pods import owner_reference

Obj = dict[str, Any]


def build_child(owner: Resource, labels: Mapping[str, str], api_version: str, kind: str, name: str) -> Obj:
    """An object with nothing but its type and metadata: labelled, and gone with its owner."""
    metadata = {
        "name": name,
        "namespace": owner.metadata.namespace,
        "labels": dict(labels),
        "ownerReferences": [owner_reference(owner)],
    }
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata}
