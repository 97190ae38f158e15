"""Patience: until the store service is there, and over broken connections."""

import time
from collections.abc import Callable
from typing import TypeVar

from codetune_api.metadata import STORE_SERVICE

from codetune_cli.connecting import Connection, Obj
from codetune_cli.errors import ApiRefusal, CliError, Interrupted
from codetune_cli.storing import StoreClient

T = TypeVar("T")
Say = Callable[[str], None]
Pause = Callable[[float], None]

ATTEMPTS = 8
"""Times in a row that a request may fail; the pauses between them sum up to 2 minutes."""
LONGEST_PAUSE_SECONDS = 30.0
_LOOK_SECONDS = 1.0
_SELECTOR = f"app.kubernetes.io/instance={STORE_SERVICE}"


def sleep(seconds: float) -> None:
    """Do nothing for a while."""
    time.sleep(seconds)


def insist(attempt: Callable[[], T], say: Say, pause: Pause = sleep) -> T:
    """Try again while the connection is broken. Raises: CliError, also after the last attempt."""
    for number in range(ATTEMPTS):
        try:
            return attempt()
        except Interrupted as error:
            if number == ATTEMPTS - 1:
                raise CliError(f"{error} Run the same command again later: it goes on where it stopped.") from error
            seconds = min(2.0**number, LONGEST_PAUSE_SECONDS)
            say(f"{error} Going on in {seconds:.0f} s.")
            pause(seconds)
    raise AssertionError("the last attempt returns or raises")


def wait_for_store(store: StoreClient, seconds: float, say: Say, pause: Pause = sleep) -> None:
    """Wait until the store service answers, and tell what it waits for.

    Raises:
        CliError: It did not come in time, or may not be used.
    """
    deadline, told = time.monotonic() + seconds, ""
    while True:
        try:
            store.info()
            return
        except Interrupted as error:
            state = describe_store(store.connection) or str(error)
        if time.monotonic() > deadline:
            raise CliError(f"The store service did not come within {seconds:.0f} s: {state}")
        if state != told:
            say(f"Waiting for the store service: {state}")
            told = state
        pause(_LOOK_SECONDS)


def describe_store(connection: Connection) -> str:
    """What keeps the store service from being there; empty where the caller may not see it."""
    root = f"/namespaces/{connection.namespace}"
    try:
        connection.ask("GET", f"/apis/apps/v1{root}/deployments/{STORE_SERVICE}")
        pods = connection.ask("GET", f"/api/v1{root}/pods?labelSelector={_SELECTOR}")["items"]
    except ApiRefusal as error:
        if error.status == 404:
            return "the operator has not made it yet. Does the operator run, and is this one of its namespaces?"
        return ""
    except Interrupted:
        return ""
    return next((text for pod in pods if (text := describe_pod(pod))), "its pod is starting.")


def describe_pod(pod: Obj) -> str:
    """What keeps a pod from running; empty where nothing is known of it."""
    name, status = pod["metadata"]["name"], pod.get("status") or {}
    for condition in status.get("conditions") or []:
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return f"no node takes pod {name}: {condition.get('message', '')}"
    for container in status.get("containerStatuses") or []:
        waiting = (container.get("state") or {}).get("waiting") or {}
        if waiting.get("message"):
            return f"pod {name}: {waiting.get('reason', '')}: {waiting['message']}"
    return ""
