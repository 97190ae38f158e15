"""`kubectl codetune upload PROJECT PATH…`: local files become the data of an upload source."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from codetune_api.project import Project, Source

from codetune_cli.choosing import choose_files
from codetune_cli.connecting import Connection
from codetune_cli.errors import CliError
from codetune_cli.listing import Listing, build_listing
from codetune_cli.resources import ask_for_rescan, find_project
from codetune_cli.sending import Sender, Sent
from codetune_cli.showing import Screen, say_bytes
from codetune_cli.storing import StoreClient
from codetune_cli.waiting import wait_for_store

_NO_SOURCE = """Project {project!r} has no source that takes uploads; its sources are: {sources}.
Add one to spec.sources of its manifest and apply it:

  sources:
    - name: code
      upload: {{}}

or at once: kubectl patch project {project} -n {namespace} --type=json \
-p='[{{"op": "add", "path": "/spec/sources/-", "value": {{"name": "code", "upload": {{}}}}}}]'"""


@dataclass(frozen=True)
class Upload:
    """What was asked for."""

    project: str
    paths: Sequence[Path]
    source: str | None
    wait_seconds: float


def upload(asked: Upload, connection: Connection, screen: Screen) -> None:
    """Send files, and have the Project scan them.

    Raises:
        CliError: It can't be done; the message says why and what to do.
    """
    project = find_project(connection, asked.project)
    source = choose_source(project, asked.source, connection.namespace)
    listing = _read_files(asked.paths, screen)
    store = StoreClient(connection)
    wait_for_store(store, asked.wait_seconds, screen.say)
    sent = _send(Sender(store, asked.project, source, listing, screen.say), screen)
    head = sent.head
    screen.result(f"{head.files} files ({say_bytes(head.bytes)}) are uploaded to source {source} as {head.revision}.")
    _rescan(connection, screen, asked.project, source, sent)


def choose_source(project: Project, wanted: str | None, namespace: str) -> str:
    """The upload source to send to. Raises: CliError."""
    sources = project.spec.sources
    uploads = [source.name for source in sources if source.upload is not None]
    name = project.metadata.name
    if not uploads:
        told = ", ".join(f"{source.name} ({_kind(source)})" for source in sources)
        raise CliError(_NO_SOURCE.format(project=name, sources=told, namespace=namespace))
    if wanted is None and len(uploads) == 1:
        return uploads[0]
    if wanted is None:
        raise CliError(f"Project {name!r} has several upload sources: choose with --source {' or '.join(uploads)}.")
    if wanted not in uploads:
        raise CliError(f"Project {name!r} has no upload source {wanted!r}; it has: {', '.join(uploads)}.")
    return wanted


def _kind(source: Source) -> str:
    return next((kind for kind in ("git", "archive", "volume") if getattr(source, kind) is not None), "upload")


def _read_files(paths: Sequence[Path], screen: Screen) -> Listing:
    choice = choose_files(paths)
    total = sum(file.lstat().st_size for file in choice.files.values())
    with screen.progress("Reading", total) as meter:
        listing = build_listing(choice, meter.advance)
    screen.left_out(choice.left_out)
    return listing


def _send(sender: Sender, screen: Screen) -> Sent:
    with screen.progress("Sending", 1) as meter:

        def begin(lacking: int, there: int) -> None:
            meter.set_total(lacking)
            known = f"; {say_bytes(there)} are there already" if there else ""
            screen.say(f"Sending {say_bytes(lacking)} of {sender.listing.files} files{known}.")

        return sender.send(begin, meter.advance)


def _rescan(connection: Connection, screen: Screen, name: str, source: str, sent: Sent) -> None:
    """Not when the Project stands on these very files already, and none of them was damaged in the store."""
    version = sent.head.revision.removeprefix("sha256:")
    project = find_project(connection, name)
    scanned = {status.name: status.commit for status in project.status.sources}
    if not sent.contents and project.status.phase == "Ready" and scanned.get(source) == version:
        screen.result(f"Project {name} has scanned these very files already.")
        return
    ask_for_rescan(connection, project, version)
    screen.result(f"Project {name} scans them now: kubectl get project {name} -n {connection.namespace} --watch")
