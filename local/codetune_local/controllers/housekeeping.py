"""Small standing duties: every namespace has its `default` ServiceAccount, pods that no node had can go, and Events go
after an hour."""

import asyncio
import logging
from datetime import datetime, timedelta

from codetune_local.machinery.client import ApiError, Client
from codetune_local.machinery.executing import delete_if_same, is_namespace_terminating, write_status
from codetune_local.machinery.looping import Controller, itself
from codetune_local.machinery.objects import Key, Obj, is_being_deleted, name_of, namespace_of, uid_of
from codetune_local.machinery.reading import get_or_none
from codetune_local.machinery.times import Clock, parse_time, utc_now

logger = logging.getLogger(__name__)
DEFAULT_ACCOUNT = "default"
EVENT_LIFETIME = timedelta(hours=1)
_EVENT_CHECK_SECONDS = 60.0
_FAILED: Obj = {"phase": "Failed"}


def serviceaccount_controller(client: Client) -> Controller:
    """Creates the `default` ServiceAccount, also after somebody deleted it."""

    async def reconcile(key: Key) -> float | None:
        name = key[1]
        namespace = await get_or_none(client, "namespaces", name)
        if namespace is None or is_being_deleted(namespace):
            return None
        if await get_or_none(client, "serviceaccounts", DEFAULT_ACCOUNT, name) is None:
            metadata = {"name": DEFAULT_ACCOUNT, "namespace": name}
            account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}
            try:
                await client.create("serviceaccounts", account)
            except ApiError as error:
                if error.reason != "AlreadyExists" and not is_namespace_terminating(error):
                    raise
        return None

    triggers = {
        "namespaces": lambda namespace: [("", name_of(namespace))],
        "serviceaccounts": lambda account: [("", namespace_of(account))],
    }
    return Controller("serviceaccount", triggers, reconcile)


def pod_collector(client: Client) -> Controller:
    """Calls pods failed that were deleted before a node had them: no kubelet ever says how they ended, and the Job that
    holds them by a finalizer waits for that."""

    async def reconcile(key: Key) -> float | None:
        pod = await get_or_none(client, "pods", key[1], key[0])
        if pod is not None and never_ran(pod):
            await write_status(client, "pods", *key, uid_of(pod), lambda now: {**now.get("status", {}), **_FAILED})
        return None

    return Controller("podgc", {"pods": itself}, reconcile)


def never_ran(pod: Obj) -> bool:
    """Whether a pod is going that no node has taken, and nobody has said yet how it ended."""
    is_over = (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")
    return is_being_deleted(pod) and not is_over and not pod["spec"].get("nodeName")


async def expire_events(client: Client, clock: Clock = utc_now) -> None:
    """Delete Events that were not seen for an hour; runs until cancelled."""
    while True:
        try:
            for event in await client.list("events"):
                if clock() - last_seen(event) > EVENT_LIFETIME:
                    await delete_if_same(client, "events", namespace_of(event), name_of(event), uid_of(event))
        except ApiError as error:
            logger.info("Old Events could not be removed: %s", error.message)
        await asyncio.sleep(_EVENT_CHECK_SECONDS)


def last_seen(event: Obj) -> datetime:
    """When an Event happened last."""
    series = event.get("series") or {}
    for text in (series.get("lastObservedTime"), event.get("lastTimestamp"), event.get("eventTime")):
        if text:
            return parse_time(text)
    return parse_time(event["metadata"]["creationTimestamp"])
