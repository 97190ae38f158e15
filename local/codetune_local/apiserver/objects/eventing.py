"""One Event, two APIs: it is stored as the core API writes it, and shown by events.k8s.io under other names. Pure."""

from typing import Any

Obj = dict[str, Any]
GROUP = "events.k8s.io"
_NAMES = {
    "involvedObject": "regarding",
    "message": "note",
    "source": "deprecatedSource",
    "firstTimestamp": "deprecatedFirstTimestamp",
    "lastTimestamp": "deprecatedLastTimestamp",
    "count": "deprecatedCount",
    "reportingComponent": "reportingController",
}


def to_core(event: Obj) -> Obj:
    """The event as core/v1 writes it."""
    back = {new: old for old, new in _NAMES.items()}
    return {**{back.get(key, key): value for key, value in event.items()}, "apiVersion": "v1"}


def from_core(event: Obj) -> Obj:
    """The event as events.k8s.io/v1 writes it."""
    shown = {_NAMES.get(key, key): value for key, value in event.items()}
    return {"eventTime": None, **shown, "apiVersion": f"{GROUP}/v1"}
