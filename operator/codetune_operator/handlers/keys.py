"""How the operator speaks of a resource between its parts."""

from typing import Any, NamedTuple

from codetune_api.metadata import STORE_SERVICE

STORE = "Store"
"""Kind of the key of a namespace's store service, which no resource stands for."""


class Key(NamedTuple):
    """A resource that is reconciled, or a namespace's store service."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


def key_of(obj: dict[str, Any]) -> Key:
    """The key of an object."""
    return Key(obj["kind"], obj["metadata"]["namespace"], obj["metadata"]["name"])


def store_key(namespace: str) -> Key:
    """The key of a namespace's store service."""
    return Key(STORE, namespace, STORE_SERVICE)
