"""Resources as they change: watches of the API server, taken up again where they end."""

import json
from collections.abc import Iterator
from typing import NamedTuple

from codetune_api.finetune import FineTune
from codetune_api.metadata import API_VERSION

from codetune_cli import waiting
from codetune_cli.connecting import Connection, Obj
from codetune_cli.errors import ApiRefusal, CliError, Interrupted
from codetune_cli.resources import find_finetune, read_resource
from codetune_cli.streaming import read_pieces, split_lines
from codetune_cli.waiting import Say, insist

WATCH_SECONDS = 90
"""The server ends a watch after this, well before the connection counts as dead."""
GONE = 410
"""The changes since that version are not known any more."""
_PAUSE_SECONDS = 1.0
"""Between two watches."""


class Event(NamedTuple):
    """A line of a watch."""

    type: str
    """ADDED, MODIFIED, DELETED, or BOOKMARK, which tells the version alone."""
    object: Obj

    @property
    def version(self) -> str:
        """Where a later watch goes on from."""
        return str(self.object["metadata"]["resourceVersion"])


def watch_events(connection: Connection, path: str, version: str, *, name: str = "") -> Iterator[Event]:
    """Changes after a version, until the server ends the watch.

    Args:
        connection: The API server.
        path: Of the resources.
        version: A resourceVersion.
        name: Of the only one that matters; empty: all.

    Raises:
        ApiRefusal: They may not be watched, or that version is not known any more (GONE).
        Interrupted: The connection broke.
    """
    query = {
        "watch": "true",
        "resourceVersion": version,
        "allowWatchBookmarks": "true",
        "timeoutSeconds": str(WATCH_SECONDS),
        **({"fieldSelector": f"metadata.name={name}"} if name else {}),
    }
    for line in split_lines(read_pieces(connection.open("GET", path, query=query))):
        event = _read_event(line)
        if event.type == "ERROR":
            raise ApiRefusal(event.object.get("code") or GONE, event.object.get("message") or "the watch failed")
        yield event


def _read_event(line: bytes) -> Event:
    """Raises: Interrupted where it is none, or not the whole of one."""
    try:
        event = json.loads(line)
        read = Event(event["type"], dict(event["object"]))
        if read.type != "ERROR":
            told = {"resourceVersion"} if read.type == "BOOKMARK" else {"resourceVersion", "name"}
            if not told <= {*read.object["metadata"]}:
                raise KeyError("metadata")
    except (ValueError, KeyError, TypeError) as error:
        raise Interrupted("The watch broke off in the middle of a change.") from error
    return read


def watch_finetune(connection: Connection, name: str, say: Say) -> Iterator[FineTune]:
    """A FineTune as it is now, and then after each change of it; never ends by itself.

    Raises:
        CliError: It is not there, was deleted, or may not be watched.
    """
    path = f"/apis/{API_VERSION}/namespaces/{connection.namespace}/finetunes"
    while True:
        found = insist(lambda: find_finetune(connection, name), say)
        yield found
        version = found.metadata.resource_version
        while version:
            try:
                for event in watch_events(connection, path, version, name=name):
                    version = event.version
                    if event.type == "DELETED":
                        raise CliError(f"FineTune {name!r} was deleted.")
                    if event.type != "BOOKMARK":
                        yield read_resource(FineTune, event.object)
            except Interrupted:
                version = ""  # look anew, with patience
            except ApiRefusal as error:
                if error.status != GONE:
                    hint = "Ask for `watch` on finetunes in this namespace; the ClusterRole `view` has it"
                    raise CliError(f"FineTune {name!r} can't be watched: {error}. {hint}.") from error
                version = ""
            waiting.sleep(_PAUSE_SECONDS)
