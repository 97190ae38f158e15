"""Kubernetes Events about resources; the same one again raises its count."""

import asyncio
import hashlib
import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from codetune_api.digests import canonical

from codetune_operator.cluster.connecting import MERGE_PATCH, Cluster
from codetune_operator.cluster.kinds import EVENT
from codetune_operator.errors import MissingError
from codetune_operator.reconcile.durations import format_time
from codetune_operator.reconcile.plan import EventSpec

Obj = dict[str, Any]

_COMPONENT = "codetune-operator"
_MESSAGE_LIMIT = 1024
_REMEMBERED = 4096


@dataclass
class EventRecorder:
    """Records Events, and remembers which it recorded, for their counts."""

    cluster: Cluster
    clock: Callable[[], datetime] = field(default=lambda: datetime.now(UTC))
    _process: str = field(default_factory=lambda: secrets.token_hex(4))
    _counts: OrderedDict[str, int] = field(default_factory=OrderedDict)

    async def record(self, *, about: Obj, event: EventSpec) -> None:
        """Record an Event about an object. Raises: OperatorError."""
        name = self._name(about, event)
        count = self._counts.get(name, 0) + 1
        namespace = about["metadata"]["namespace"]
        if count > 1:
            patch = {"count": count, "lastTimestamp": format_time(self.clock())}
            path = EVENT.path(namespace, name)
            try:
                await asyncio.to_thread(self.cluster.send, "PATCH", path, body=patch, content_type=MERGE_PATCH)
            except MissingError:
                # The API server forgets Events after an hour.
                count = 1
        if count == 1:
            body = self._build(about, event, name)
            await asyncio.to_thread(self.cluster.send, "POST", EVENT.path(namespace), body=body)
        self._remember(name, count)

    def _remember(self, name: str, count: int) -> None:
        self._counts[name] = count
        self._counts.move_to_end(name)
        while len(self._counts) > _REMEMBERED:
            self._counts.popitem(last=False)

    def _name(self, about: Obj, event: EventSpec) -> str:
        """The same for the same Event of this process; counts of another process are not known here."""
        told = [self._process, about["metadata"]["uid"], event.type, event.reason, event.message]
        return f"{about['metadata']['name']}.{hashlib.sha256(canonical(told)).hexdigest()[:16]}"

    def _build(self, about: Obj, event: EventSpec, name: str) -> Obj:
        now, metadata = format_time(self.clock()), about["metadata"]
        message = event.message
        if len(message) > _MESSAGE_LIMIT:
            message = message[: _MESSAGE_LIMIT - 1] + "…"
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": metadata["namespace"]},
            "involvedObject": {
                "apiVersion": about["apiVersion"],
                "kind": about["kind"],
                "namespace": metadata["namespace"],
                "name": metadata["name"],
                "uid": metadata["uid"],
                "resourceVersion": metadata.get("resourceVersion", ""),
            },
            "type": event.type,
            "reason": event.reason,
            "message": message,
            "source": {"component": _COMPONENT},
            "reportingComponent": _COMPONENT,
            "reportingInstance": self._process,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
