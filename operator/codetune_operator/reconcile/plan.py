"""The value that a reconciler returns and the only thing that is ever carried out."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from codetune_api.contracts import DesiredAdapters
from codetune_api.model import ApiModel

Obj = dict[str, Any]
"""A Kubernetes object as JSON."""


@dataclass(frozen=True)
class ChildRef:
    """A child to delete, in the namespace of its owner."""

    api_version: str
    kind: str
    name: str
    uid: str | None = None
    """Precondition: delete only this very object."""


@dataclass(frozen=True)
class EventSpec:
    """A Kubernetes Event about the reconciled resource."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


@dataclass(frozen=True)
class Follow:
    """A pod whose log carries this run's protocol lines."""

    pod: str
    container: str
    nonce: str
    since: str | None = None
    """RFC 3339: read from here on; None: from the beginning."""
    finished: bool = False
    """The container is done: read to the end once, without waiting for more."""


@dataclass(frozen=True)
class AdapterPush:
    """A desired adapter set to hand to serving pods."""

    pods: Mapping[str, str]
    """Pod name → base URL, `http://IP:port`."""
    adapters: DesiredAdapters
    token: str = field(repr=False)


@dataclass(frozen=True)
class Plan:
    """What to do now, in this order: add finalizer, apply, delete, follow, push, status, events, remove finalizer."""

    status: ApiModel | None = None
    """The whole new status; None leaves it. Written only when it differs."""
    apply: tuple[Obj, ...] = ()
    """Whole desired children, applied server-side; owner references included."""
    delete: tuple[ChildRef, ...] = ()
    follow: tuple[Follow, ...] = ()
    push: AdapterPush | None = None
    events: tuple[EventSpec, ...] = ()
    finalizer: Literal["Add", "Remove", "Keep"] = "Keep"
    requeue_after: float | None = None
    """Seconds until the next look, when nothing else happens before."""
