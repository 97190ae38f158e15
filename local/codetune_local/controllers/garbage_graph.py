"""Who owns whom, over all objects of the cluster, and what follows for one object. Pure.

What it follows: https://kubernetes.io/docs/concepts/architecture/garbage-collection/
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal

from codetune_local.machinery.objects import Obj, finalizers_of, is_being_deleted, key_of, uid_of

FOREGROUND, ORPHAN = "foregroundDeletion", "orphan"

OwnerState = Literal["solid", "waiting", "dangling"]
"""It exists; it exists but waits for this object to go; it is gone."""


@dataclass(frozen=True)
class Node:
    """An object as far as garbage collection is concerned."""

    uid: str
    resource: str
    namespace: str
    name: str
    owners: tuple[Obj, ...] = ()
    is_deleting: bool = False
    finalizers: tuple[str, ...] = ()

    @classmethod
    def of(cls, resource: str, obj: Obj) -> "Node":
        """Read an object."""
        namespace, name = key_of(obj)
        owners = tuple(obj["metadata"].get("ownerReferences") or ())
        return cls(uid_of(obj), resource, namespace, name, owners, is_being_deleted(obj), tuple(finalizers_of(obj)))

    @property
    def waits_for_dependents(self) -> bool:
        """Whether it goes only after what it owns."""
        return self.is_deleting and FOREGROUND in self.finalizers


@dataclass
class OwnerGraph:
    """All objects by uid, and the objects that name each as owner."""

    nodes: dict[str, Node] = field(default_factory=dict)
    _dependents: dict[str, set[str]] = field(default_factory=dict)

    def put(self, node: Node) -> None:
        """Add or replace an object."""
        self.remove(node.uid)
        self.nodes[node.uid] = node
        for reference in node.owners:
            self._dependents.setdefault(reference["uid"], set()).add(node.uid)

    def remove(self, uid: str) -> None:
        """Forget an object; who names it as owner stays known."""
        node = self.nodes.pop(uid, None)
        for reference in node.owners if node else ():
            left = self._dependents.get(reference["uid"], set())
            left.discard(uid)
            if not left:
                self._dependents.pop(reference["uid"], None)

    def dependents(self, uid: str) -> list[Node]:
        """What names this object as an owner."""
        return [self.nodes[found] for found in sorted(self._dependents.get(uid, ()))]

    def blocking(self, uid: str) -> list[Node]:
        """Those dependents that the owner's foreground deletion waits for."""
        return [
            node
            for node in self.dependents(uid)
            if any(reference["uid"] == uid and reference.get("blockOwnerDeletion") for reference in node.owners)
        ]


@dataclass(frozen=True)
class Verdict:
    """What follows for an object that is not being deleted."""

    action: Literal["keep", "trim", "delete"]
    drop_owners: frozenset[str] = frozenset()
    """For `trim`: uids to take out of its ownerReferences."""
    propagation: str = "Background"


KEEP = Verdict("keep")


def judge(node: Node, state_of: Callable[[Obj], OwnerState], has_dependents: bool) -> Verdict:
    """Whether an object is garbage.

    Args:
        state_of: Tells the state of one of its ownerReferences.
        has_dependents: Whether it owns something itself.
    """
    if node.is_deleting or not node.owners:
        return KEEP
    states = [(reference["uid"], state_of(reference)) for reference in node.owners]
    lost = frozenset(uid for uid, state in states if state != "solid")
    if any(state == "solid" for _, state in states):
        return Verdict("trim", lost) if lost else KEEP
    if any(state == "waiting" for _, state in states) and has_dependents:
        return Verdict("delete", propagation="Foreground")
    if ORPHAN in node.finalizers:
        return Verdict("delete", propagation="Orphan")
    return Verdict("delete", propagation="Foreground" if FOREGROUND in node.finalizers else "Background")


def without_owners(references: Iterable[Obj], uids: frozenset[str]) -> list[Obj]:
    """ownerReferences less some."""
    return [reference for reference in references if reference["uid"] not in uids]
