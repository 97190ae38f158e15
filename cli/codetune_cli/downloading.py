"""`kubectl codetune download FINETUNE`: the adapter of a checkpoint, each file verified by its digest."""

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from codetune_api.artifacts import ADAPTER_FILES, MANIFEST, checkpoint_folder, checkpoint_name
from codetune_api.contracts import CheckpointManifest
from codetune_api.digests import FileEntry
from codetune_api.finetune import CheckpointStatus, FineTune
from codetune_api.modelcard import CARD, is_card, render_card
from pydantic import ValidationError

from codetune_cli.connecting import Connection, read_all
from codetune_cli.errors import CliError, Interrupted
from codetune_cli.reaching import reach_store
from codetune_cli.resources import find_finetune
from codetune_cli.showing import Meter, Screen, say_bytes
from codetune_cli.storing import StoreClient
from codetune_cli.streaming import read_pieces
from codetune_cli.waiting import insist

_RUN = re.compile(r"(?:pvc|s3)://.+/finetunes/([^/]+)/([^/]+)/checkpoints/[^/]+")
_STEP = re.compile(r"step-([0-9]{1,9})")
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Wish:
    """What was asked for."""

    finetune: str
    checkpoint: str
    """`best`, `latest`, `step-N` or a checkpoint's name."""
    output: Path | None
    wait_seconds: float


def download(asked: Wish, connection: Connection, screen: Screen) -> None:
    """Fetch an adapter into a folder. Raises: CliError."""
    finetune = find_finetune(connection, asked.finetune)
    checkpoint = choose_checkpoint(finetune, asked.checkpoint)
    folder = asked.output or Path(f"{asked.finetune}-{checkpoint.name}")
    store = reach_store(connection, finetune, asked.wait_seconds, screen)
    root = f"{find_run(checkpoint)}/{checkpoint_folder('', checkpoint.name).lstrip('/')}"
    manifest = _fetch_manifest(store, root, checkpoint, screen)
    make_folder(folder, manifest.adapter)
    with screen.progress("Downloading", sum(entry.bytes for entry in manifest.adapter.values())) as meter:
        for name, entry in manifest.adapter.items():
            fetch_file(Place(store, f"{root}/{name}", folder / name, entry), meter, screen)
    write_card(folder, finetune, checkpoint, merged=False)
    size = say_bytes(sum(entry.bytes for entry in manifest.adapter.values()))
    screen.result(f"{folder} holds the adapter of {asked.finetune} at {checkpoint.name} ({size}, {checkpoint.digest}).")


def write_card(folder: Path, finetune: FineTune, checkpoint: CheckpointStatus, *, merged: bool) -> None:
    """The model card, which is made anew by each download: its evaluation may be newer."""
    (folder / CARD).write_text(render_card(finetune, checkpoint, merged=merged), encoding="utf-8")


def choose_checkpoint(finetune: FineTune, wanted: str) -> CheckpointStatus:
    """The checkpoint that is meant. Raises: CliError that names those that are there."""
    status, name = finetune.status, finetune.metadata.name
    known = {"best": status.best_checkpoint or status.latest_checkpoint, "latest": status.latest_checkpoint}
    if step := _STEP.fullmatch(wanted):
        known[wanted] = checkpoint_name(int(step[1]))
    found = {checkpoint.name: checkpoint for checkpoint in status.checkpoints}
    if not found:
        raise CliError(f"FineTune {name!r} has no checkpoint yet; it is {status.phase or 'not started'}.")
    chosen = found.get(known.get(wanted, wanted) or "")
    if chosen is None:
        raise CliError(f"FineTune {name!r} has no checkpoint {wanted!r}; it has: {', '.join(found)}, best, latest.")
    return chosen


@dataclass(frozen=True)
class Place:
    """A file in the store, where it goes, and what it has to be."""

    store: StoreClient
    path: str
    target: Path
    entry: FileEntry


def fetch_file(place: Place, meter: Meter, screen: Screen) -> None:
    """One file, whole and verified or not at all; a cut goes on where it was. Raises: CliError."""
    part = place.target.with_name(f".{place.target.name}.{place.entry.sha256[:12]}.part")
    there = min(part.stat().st_size, place.entry.bytes) if part.exists() else 0
    meter.advance(there)

    def go_on() -> None:
        offset = part.stat().st_size if part.exists() else 0
        if offset < place.entry.bytes:
            _append(place, part, offset, meter)

    insist(go_on, screen.say)
    found = _digest(part) if part.exists() else ""
    if found != place.entry.sha256:
        part.unlink(missing_ok=True)
        raise CliError(
            f"{place.path} came with the SHA-256 {found or 'of nothing'}, not {place.entry.sha256}: try again."
        )
    os.replace(part, place.target)


def _append(place: Place, part: Path, offset: int, meter: Meter) -> None:
    answer = place.store.open("GET", place.path, headers={"Range": f"bytes={offset}-", "Accept": "*/*"})
    if answer.status != 206:
        answer.close()
        raise CliError(f"{place.path} can't be read from byte {offset} on (HTTP {answer.status}).")
    with part.open("ab") as file:
        for piece in read_pieces(answer):
            if file.tell() + len(piece) > place.entry.bytes:
                raise CliError(f"{place.path} has more than the {place.entry.bytes} bytes that its manifest names.")
            file.write(piece)
            meter.advance(len(piece))
        if file.tell() < place.entry.bytes:
            raise Interrupted("The answer ended early.")


def _fetch_manifest(store: StoreClient, root: str, checkpoint: CheckpointStatus, screen: Screen) -> CheckpointManifest:
    content = insist(lambda: read_all(store.open("GET", f"{root}/{MANIFEST}")), screen.say)
    try:
        manifest = CheckpointManifest.model_validate_json(content)
    except ValidationError as error:
        raise CliError(f"The manifest of {checkpoint.name} is not valid: the checkpoint is damaged.") from error
    if manifest.digest() != checkpoint.digest:
        raise CliError(f"{checkpoint.name} has the digest {manifest.digest()}, but status says {checkpoint.digest}.")
    if set(manifest.adapter) != set(ADAPTER_FILES):
        raise CliError(f"{checkpoint.name} is no adapter: it names {', '.join(map(repr, sorted(manifest.adapter)))}.")
    return manifest


def find_run(checkpoint: CheckpointStatus) -> str:
    """The route of the run's files. Raises: CliError."""
    match = _RUN.fullmatch(checkpoint.uri)
    if match is None:
        raise CliError(f"{checkpoint.name} lies at {checkpoint.uri}, which the store service does not offer.")
    return f"/v1/finetunes/{match[1]}/{match[2]}/files"


def make_folder(folder: Path, files: Mapping[str, FileEntry]) -> None:
    """The folder that a download goes into: a new one, one without these names, or that of a download before.

    Raises:
        CliError: It can't be made, or something of the caller's own would be replaced.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        foreign = _find_foreign(folder, files)
    except OSError as error:
        raise CliError(f"The folder {folder} can't be used: {error.strerror}.") from error
    if foreign:
        cure = "choose another folder with -o DIR, or move it away"
        raise CliError(f"{folder / foreign} is there already and is not of a download, so it is left alone: {cure}.")


def _find_foreign(folder: Path, files: Mapping[str, FileEntry]) -> str:
    """What a download would replace that none has brought; empty where there is no such file."""
    card = folder / CARD
    if card.exists():
        return "" if is_card(card.read_text(encoding="utf-8", errors="replace")) else CARD
    # A download that was cut has no card yet, and what it has brought stays as it is.
    there = ((name, folder / name, entry) for name, entry in files.items())
    return next((name for name, path, entry in there if path.exists() and _digest(path) != entry.sha256), "")


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
