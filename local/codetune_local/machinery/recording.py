"""Recording Events as clients of Kubernetes do: repeated ones are counted up instead of written again."""

import logging
import secrets
from collections import OrderedDict
from datetime import timedelta

from codetune_local.machinery.actions import Announcement
from codetune_local.machinery.client import ApiError, Client
from codetune_local.machinery.objects import Obj, name_of, namespace_of, uid_of
from codetune_local.machinery.times import Clock, format_time, parse_time, utc_now

logger = logging.getLogger(__name__)
MAX_MESSAGE = 1024
"""Characters: the API server refuses longer ones."""
_REPEATED_WITHIN = timedelta(minutes=10)
_REMEMBERED = 4096


class Recorder:
    """Writes Events in the name of one component. What can't be written is logged: an Event never stops the work."""

    def __init__(self, client: Client, component: str, host: str = "", clock: Clock = utc_now) -> None:
        self._client = client
        self._source = {"component": component, **({"host": host} if host else {})}
        self._clock = clock
        self._recent: OrderedDict[tuple[str, ...], Obj] = OrderedDict()

    async def record(self, event: Announcement, field_path: str = "") -> None:
        """Record an Event, or count up the same one of the last ten minutes."""
        identity = (uid_of(event.regarding), event.type, event.reason, event.message, field_path)
        try:
            if not await self._count_up(identity):
                self._remember(identity, await self._client.create("events", self._build(event, field_path)))
        except ApiError as error:
            logger.info("Event %s of %s was not recorded: %s", event.reason, name_of(event.regarding), error.message)

    async def _count_up(self, identity: tuple[str, ...]) -> bool:
        known = self._recent.get(identity)
        now = self._clock()
        if known is None or now - parse_time(known["lastTimestamp"]) > _REPEATED_WITHIN:
            return False
        patch = {"count": known["count"] + 1, "lastTimestamp": format_time(now)}
        try:
            changed = await self._client.merge_patch("events", name_of(known), namespace_of(known), patch)
        except ApiError as error:
            if error.code != 404:  # it outlived its hour: write it anew
                raise
            return False
        self._remember(identity, changed)
        return True

    def _remember(self, identity: tuple[str, ...], event: Obj) -> None:
        self._recent[identity] = event
        self._recent.move_to_end(identity)
        while len(self._recent) > _REMEMBERED:
            self._recent.popitem(last=False)

    def _build(self, event: Announcement, field_path: str) -> Obj:
        about = event.regarding
        namespace = namespace_of(about) or "default"
        now = format_time(self._clock())
        reference = {
            "apiVersion": about.get("apiVersion", "v1"),
            "kind": about["kind"],
            "name": name_of(about),
            "namespace": namespace_of(about),
            "uid": uid_of(about),
            "resourceVersion": about["metadata"].get("resourceVersion", ""),
            "fieldPath": field_path,
        }
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{name_of(about)}.{secrets.token_hex(8)}", "namespace": namespace},
            "involvedObject": {key: value for key, value in reference.items() if value},
            "reason": event.reason,
            "message": event.message[:MAX_MESSAGE],
            "type": event.type,
            "source": self._source,
            "reportingComponent": self._source["component"],
            "reportingInstance": self._source.get("host", ""),
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
