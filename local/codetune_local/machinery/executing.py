"""Carrying out the actions of a plan against the API server."""

import copy
from collections.abc import Callable
from typing import Any

from codetune_local.machinery.actions import (
    Action,
    Announce,
    Announcement,
    Create,
    Delete,
    Patch,
    Plan,
    RemoveFinalizer,
    WriteStatus,
)
from codetune_local.machinery.client import ApiError, Client
from codetune_local.machinery.objects import Obj, finalizers_of, name_of, uid_of
from codetune_local.machinery.recording import Recorder

NOT_FOUND = 404
CONFLICT = 409
_ATTEMPTS = 5


async def execute(plan: Plan, client: Client, recorder: Recorder) -> None:
    """Do what a plan says, in order. Raises: ApiError of the first action that is refused; the rest is not tried."""
    for action in plan.actions:
        await execute_action(action, client, recorder)


async def execute_action(action: Action, client: Client, recorder: Recorder) -> None:
    """Do one action. Raises: ApiError."""
    if isinstance(action, Create):
        await _create(action, client, recorder)
    elif isinstance(action, Delete):
        if await delete_if_same(client, action.resource, action.namespace, action.name, action.uid, action.propagation):
            await _announce(action.announce, action.name, recorder)
    elif isinstance(action, RemoveFinalizer):
        await remove_finalizer(client, action)
    elif isinstance(action, WriteStatus):
        await write_status(client, action.resource, action.namespace, action.name, action.uid, lambda _: action.status)
    elif isinstance(action, Patch):
        await _patch(action, client, recorder)
    elif isinstance(action, Announce):
        await _announce(action.event, "", recorder)


async def _create(action: Create, client: Client, recorder: Recorder) -> None:
    try:
        created = await client.create(action.resource, action.obj)
    except ApiError as error:
        if is_namespace_terminating(error):
            return
        if action.tolerate_existing and error.reason == "AlreadyExists":
            return
        if action.announce:
            about = action.announce.regarding
            await recorder.record(Announcement(about, "FailedCreate", f"Error creating: {error.message}", "Warning"))
        raise
    await _announce(action.announce, name_of(created), recorder)


def is_namespace_terminating(error: ApiError) -> bool:
    """Whether something could not be created because its namespace is going: then there is nothing left to do."""
    causes = (error.details or {}).get("causes") or []
    return any(cause.get("reason") == "NamespaceTerminating" for cause in causes)


async def _patch(action: Patch, client: Client, recorder: Recorder) -> None:
    try:
        await client.merge_patch(action.resource, action.name, action.namespace or None, action.patch)
    except ApiError as error:
        if error.code != NOT_FOUND:
            raise
        return
    await _announce(action.announce, action.name, recorder)


async def _announce(event: Announcement | None, name: str, recorder: Recorder) -> None:
    if event is not None:
        text = event.message.replace("{name}", name)
        await recorder.record(Announcement(event.regarding, event.reason, text, event.type))


async def delete_if_same(
    client: Client, resource: str, namespace: str, name: str, uid: str, propagation: str = "Background", **options: Any
) -> bool:
    """Delete an object if it still has this uid; returns False when it is gone or another one. Raises: ApiError."""
    try:
        await client.delete(resource, name, namespace or None, propagation=propagation, uid=uid, **options)
    except ApiError as error:
        if error.code in (NOT_FOUND, CONFLICT):
            return False
        raise
    return True


async def remove_finalizer(client: Client, action: RemoveFinalizer) -> None:
    """Take one finalizer off. Raises: ApiError."""

    def change(obj: Obj) -> Obj | None:
        kept = [found for found in finalizers_of(obj) if found != action.finalizer]
        if kept == finalizers_of(obj):
            return None
        obj["metadata"]["finalizers"] = kept
        return obj

    await modify(client, action.resource, action.namespace, action.name, action.uid, change)


async def write_status(
    client: Client, resource: str, namespace: str, name: str, uid: str, make: Callable[[Obj], Obj]
) -> None:
    """Replace status with `make(current object)`, only when it differs. Raises: ApiError."""

    def change(obj: Obj) -> Obj | None:
        status = make(obj)
        if status == obj.get("status"):
            return None
        obj["status"] = status
        return obj

    await modify(client, resource, namespace, name, uid, change, subresource="status")


async def modify(
    client: Client,
    resource: str,
    namespace: str,
    name: str,
    uid: str,
    change: Callable[[Obj], Obj | None],
    subresource: str | None = None,
) -> bool:
    """Read, change and write back an object, again when somebody was faster.

    Args:
        change: Gets a copy; returns what to write, or None to leave it.

    Returns:
        False when the object is gone, is another one by now, or needs no change.

    Raises:
        ApiError: The change is refused, or others were faster five times in a row.
    """
    for attempt in range(_ATTEMPTS):
        try:
            current = await client.get(resource, name, namespace or None)
            changed = change(copy.deepcopy(current)) if uid_of(current) == uid else None
            if changed is None:
                return False
            await client.update(resource, changed, subresource)
            return True
        except ApiError as error:
            if error.code == NOT_FOUND:
                return False
            if error.code != CONFLICT or attempt == _ATTEMPTS - 1:
                raise
    return False
