"""How the operator speaks of a resource between its parts."""

from typing import Any, NamedTuple


class Key(NamedTuple):
    """A resource that is reconciled."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


def key_of(obj: dict[str, Any]) -> Key:
    """The key of an object."""
    return Key(obj["kind"], obj["metadata"]["namespace"], obj["metadata"]["name"])
