"""What a reconciler may ask for. A reconciler returns these as data; `executing` is the only part that does them."""

from dataclasses import dataclass, field
from typing import Literal

from codetune_local.machinery.objects import Obj


@dataclass(frozen=True)
class Announcement:
    """An Event about `regarding`; `{name}` in the message stands for the object of the action it belongs to."""

    regarding: Obj
    reason: str
    message: str
    type: Literal["Normal", "Warning"] = "Normal"


@dataclass(frozen=True)
class Create:
    """Create an object; one that exists already under this name is an error unless `tolerate_existing`."""

    resource: str
    obj: Obj
    announce: Announcement | None = None
    tolerate_existing: bool = False


@dataclass(frozen=True)
class Delete:
    """Delete an object, if it is still this one; gone already is fine."""

    resource: str
    namespace: str
    name: str
    uid: str
    propagation: str = "Background"
    announce: Announcement | None = None


@dataclass(frozen=True)
class RemoveFinalizer:
    """Take one finalizer off an object; gone already is fine."""

    resource: str
    namespace: str
    name: str
    uid: str
    finalizer: str


@dataclass(frozen=True)
class WriteStatus:
    """Replace the status of an object."""

    resource: str
    namespace: str
    name: str
    uid: str
    status: Obj


@dataclass(frozen=True)
class Patch:
    """Merge-patch an object (not its status); gone already is fine."""

    resource: str
    namespace: str
    name: str
    patch: Obj
    announce: Announcement | None = None


@dataclass(frozen=True)
class Announce:
    """Record an Event."""

    event: Announcement


Action = Create | Delete | RemoveFinalizer | WriteStatus | Patch | Announce


@dataclass(frozen=True)
class Plan:
    """What to do now, in this order, and when to look again without being asked (seconds)."""

    actions: tuple[Action, ...] = ()
    look_again: float | None = None
    notes: tuple[str, ...] = field(default=())
