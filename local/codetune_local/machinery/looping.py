"""The one loop behind every controller: events name keys, keys are reconciled, failures come again."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass

from codetune_local.machinery.client import ApiError, Client, Event
from codetune_local.machinery.objects import Key, Obj, controller_of, key_of, namespace_of
from codetune_local.machinery.queueing import WorkQueue

logger = logging.getLogger(__name__)
WATCH_RETRY = 1.0
"""Seconds before a watch that broke is opened again."""

_CANCEL_AGAIN = 0.05

Trigger = Callable[[Obj], Iterable[Key]]


@dataclass(frozen=True)
class Controller:
    """A reconciler and what wakes it."""

    name: str
    triggers: Mapping[str, Trigger]
    """Resource → which keys an event about such an object concerns."""
    reconcile: Callable[[Key], Awaitable[float | None]]
    """Makes one key right, from the live state; returns after how many seconds to look again."""


def itself(obj: Obj) -> list[Key]:
    """The trigger for the controller's own resource."""
    return [key_of(obj)]


def owner(kind: str) -> Trigger:
    """The trigger for what the controller owns: the controlling object of this kind."""

    def find(obj: Obj) -> list[Key]:
        reference = controller_of(obj)
        if reference is None or reference["kind"] != kind:
            return []
        return [(namespace_of(obj), reference["name"])]

    return find


async def run_controller(controller: Controller, client: Client) -> None:
    """Run until cancelled."""
    queue: WorkQueue[Key] = WorkQueue()

    def feeder(trigger: Trigger) -> Callable[[Event], None]:
        def feed(event: Event) -> None:
            for key in trigger(event.object):
                queue.add(key)

        return feed

    try:
        async with asyncio.TaskGroup() as group:
            for resource, trigger in controller.triggers.items():
                group.create_task(follow(client, resource, feeder(trigger)))
            group.create_task(_work(controller, queue))
    finally:
        queue.close()


async def follow(client: Client, resource: str, handle: Callable[[Event], None]) -> None:
    """Call `handle` for each event of a resource, until cancelled; a broken watch is opened again."""
    watching = asyncio.get_running_loop().create_task(_follow(client, resource, handle))
    try:
        await asyncio.wait({watching})
    finally:
        # Again and again: on Python 3.11 asyncio.wait_for loses a cancellation that meets a result.
        while not watching.done():
            watching.cancel()
            await asyncio.wait({watching}, timeout=_CANCEL_AGAIN)
    await watching


async def _follow(client: Client, resource: str, handle: Callable[[Event], None]) -> None:
    while True:
        try:
            async for event in client.watch(resource):
                handle(event)
        except ApiError as error:
            logger.warning("The watch on %s broke and is opened again: %s", resource, error.message)
        await asyncio.sleep(WATCH_RETRY)


async def _work(controller: Controller, queue: WorkQueue[Key]) -> None:
    while True:
        key = await queue.get()
        try:
            again = await controller.reconcile(key)
        except ApiError as error:
            logger.info("%s %s/%s: %s; again in %.2f s", controller.name, *key, error.message, queue.retry(key))
        except Exception:  # one broken object must not end the controller: it is logged and comes again
            logger.exception("%s %s/%s failed; again in %.2f s", controller.name, *key, queue.retry(key))
        else:
            queue.forget_failures(key)
            if again is not None:
                queue.add_later(key, again)
