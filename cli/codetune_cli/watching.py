"""A FineTune as it changes: one watch of the API server, taken up again where it ends."""

import json
from collections.abc import Iterator

from codetune_api.finetune import FineTune
from codetune_api.metadata import API_VERSION

from codetune_cli import waiting
from codetune_cli.connecting import Connection, Obj
from codetune_cli.errors import ApiRefusal, CliError, Interrupted
from codetune_cli.resources import find_finetune, read_resource
from codetune_cli.streaming import read_pieces, split_lines
from codetune_cli.waiting import Say, insist

_WATCH_SECONDS = 90
"""The server ends a watch after this, well before the connection counts as dead."""
_PAUSE_SECONDS = 1.0
"""Between two watches."""
_GONE = 410
"""The changes since that version are not known any more."""


def watch_finetune(connection: Connection, name: str, say: Say) -> Iterator[FineTune]:
    """A FineTune as it is now, and then after each change of it; never ends by itself.

    Raises:
        CliError: It is not there, was deleted, or may not be watched.
    """
    while True:
        found = insist(lambda: find_finetune(connection, name), say)
        yield found
        version = found.metadata.resource_version
        while version:
            try:
                for changed in _watch(connection, name, version):
                    version = changed.metadata.resource_version
                    yield changed
            except Interrupted:
                version = ""  # look anew, with patience
            except ApiRefusal as error:
                if error.status != _GONE:
                    hint = "Ask for `watch` on finetunes in this namespace; the ClusterRole `view` has it"
                    raise CliError(f"FineTune {name!r} can't be watched: {error}. {hint}.") from error
                version = ""
            waiting.sleep(_PAUSE_SECONDS)


def _watch(connection: Connection, name: str, version: str) -> Iterator[FineTune]:
    """Changes after a version, until the server ends the watch. Raises: CliError, ApiRefusal, Interrupted."""
    query = {
        "watch": "true",
        "fieldSelector": f"metadata.name={name}",
        "resourceVersion": version,
        "timeoutSeconds": str(_WATCH_SECONDS),
    }
    answer = connection.open("GET", f"/apis/{API_VERSION}/namespaces/{connection.namespace}/finetunes", query=query)
    for line in split_lines(read_pieces(answer)):
        kind, found = _read_event(line)
        if kind == "ERROR":
            raise ApiRefusal(found.get("code") or _GONE, found.get("message") or "the watch failed")
        if kind == "DELETED":
            raise CliError(f"FineTune {name!r} was deleted.")
        if kind in {"ADDED", "MODIFIED"}:
            yield read_resource(FineTune, found)


def _read_event(line: bytes) -> tuple[str, Obj]:
    try:
        event = json.loads(line)
        return event["type"], event["object"]
    except (ValueError, KeyError, TypeError) as error:
        raise Interrupted("The watch broke off in the middle of a change.") from error
