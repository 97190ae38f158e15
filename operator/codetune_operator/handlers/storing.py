"""What the watches have seen last: every object that matters, by kind, namespace and name.

Not kopf's own indices: a watch that had to start anew never tells what vanished meanwhile, so the store is compared
with full lists now and then, and it takes in what the operator itself wrote before the watch reports it.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from codetune_operator.cluster.kinds import Kind
from codetune_operator.cluster.listing import Listing

Obj = dict[str, Any]


class Store:
    """Objects as they were last seen; used from the event loop only."""

    def __init__(self) -> None:
        self._objects: defaultdict[tuple[str, str], dict[str, Obj]] = defaultdict(dict)

    def put(self, obj: Obj) -> bool:
        """Take in an object.

        Returns:
            Whether it is news: False for a version that is no newer than the known one.
        """
        metadata = obj["metadata"]
        group = self._objects[obj["kind"], metadata.get("namespace", "")]
        known = group.get(metadata["name"])
        if known is not None and not _is_newer(obj, known):
            return False
        group[metadata["name"]] = obj
        return True

    def refresh(self, obj: Obj) -> bool:
        """Take in what was written to an object, unless it is gone by now. Returns: whether it is news."""
        metadata = obj["metadata"]
        group = self._objects[obj["kind"], metadata.get("namespace", "")]
        known = group.get(metadata["name"])
        if known is None or known["metadata"]["uid"] != metadata["uid"]:
            return False
        if known != obj and known["metadata"]["resourceVersion"] == metadata["resourceVersion"]:
            # Its last finalizer was taken off: the API server removes it, and answers with the version that was before.
            group[metadata["name"]] = obj
            return True
        return self.put(obj)

    def remove(self, obj: Obj) -> bool:
        """Forget an object, unless another one of its name is there by now. Returns: whether it was known."""
        metadata = obj["metadata"]
        group = self._objects[obj["kind"], metadata.get("namespace", "")]
        known = group.get(metadata["name"])
        if known is None or known["metadata"]["uid"] != metadata["uid"]:
            return False
        del group[metadata["name"]]
        return True

    def get(self, kind: Kind, namespace: str, name: str) -> Obj | None:
        """One object, if it was seen."""
        return self._objects[kind.name, namespace].get(name)

    def select(self, kind: Kind, namespace: str = "", labels: Mapping[str, str] | None = None) -> tuple[Obj, ...]:
        """Objects of a kind in a namespace that carry the labels, by name."""
        group = self._objects[kind.name, namespace]
        found = (obj for obj in group.values() if _has_labels(obj, labels or {}))
        return tuple(sorted(found, key=lambda obj: str(obj["metadata"]["name"])))

    def everything(self, kind: Kind) -> tuple[Obj, ...]:
        """All objects of a kind, of every namespace."""
        groups = [group for (name, _), group in self._objects.items() if name == kind.name]
        return tuple(obj for group in groups for obj in group.values())

    def compare(self, kind: Kind, listing: Listing, namespaces: Iterable[str] | None = None) -> tuple[Obj, ...]:
        """Forget what a full list does not hold any more, and take in what it holds.

        Args:
            kind: Kind of the list.
            listing: The list.
            namespaces: Namespaces that the list covers; None: all of them.

        Returns:
            Every object that is news, those that are gone included.
        """
        covered = None if namespaces is None else set(namespaces)
        listed = {obj["metadata"]["uid"] for obj in listing.items}
        gone = [
            obj
            for obj in self.everything(kind)
            if obj["metadata"]["uid"] not in listed
            and (covered is None or obj["metadata"].get("namespace", "") in covered)
            and not _is_later(obj, listing.resource_version)
        ]
        vanished = tuple(obj for obj in gone if self.remove(obj))
        return (*vanished, *(obj for obj in listing.items if self.put(obj)))


def _is_newer(obj: Obj, known: Obj) -> bool:
    """Whether to replace what is known; versions that are no numbers can't be compared, so the later one wins."""
    new, old = obj["metadata"].get("resourceVersion", ""), known["metadata"].get("resourceVersion", "")
    if not (new.isdigit() and old.isdigit()):
        return bool(new != old)
    return int(new) > int(old)


def _is_later(obj: Obj, version: str) -> bool:
    own = obj["metadata"].get("resourceVersion", "")
    return bool(own.isdigit() and version.isdigit() and int(own) > int(version))


def _has_labels(obj: Obj, labels: Mapping[str, str]) -> bool:
    own = obj["metadata"].get("labels") or {}
    return all(own.get(key) == value for key, value in labels.items())
