"""`kubectl codetune download FINETUNE --merged`: the base model with the adapter in it, which the operator has made.

The caller asks by an annotation on the FineTune and waits for its status, so no rights are needed but those of a
download. The files come through the store service, each verified by its digest.
"""

import re
import time
from pathlib import Path

from codetune_api.artifacts import MANIFEST, merged_folder
from codetune_api.contracts import MergedManifest
from codetune_api.finetune import CheckpointStatus, FineTune, MergedStatus
from pydantic import ValidationError

from codetune_cli import waiting
from codetune_cli.connecting import Connection, read_all
from codetune_cli.downloading import Place, Wish, choose_checkpoint, fetch_file, find_run, make_folder, write_card
from codetune_cli.errors import CliError
from codetune_cli.reaching import reach_store
from codetune_cli.resources import ask_for_merge, find_finetune
from codetune_cli.showing import Screen, say_bytes
from codetune_cli.storing import StoreClient
from codetune_cli.waiting import insist

_LOOK_SECONDS = 2.0
_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_WEIGHTS = ".safetensors"


def download_merged(asked: Wish, connection: Connection, screen: Screen) -> None:
    """Have a checkpoint merged and fetch the whole model into a folder. Raises: CliError."""
    finetune = find_finetune(connection, asked.finetune)
    checkpoint = choose_checkpoint(finetune, asked.checkpoint)
    if not _is_merged(finetune.status.merged, checkpoint):
        request = ask_for_merge(connection, finetune, checkpoint.name)
        wait_for_merge(connection, finetune, request, asked.wait_seconds, screen)
    folder = asked.output or Path(f"{asked.finetune}-{checkpoint.name}-merged")
    store = reach_store(connection, finetune, asked.wait_seconds, screen)
    root = merged_folder(find_run(checkpoint), checkpoint.name)
    manifest = _fetch_manifest(store, root, checkpoint, screen)
    make_folder(folder, manifest.files)
    size = sum(entry.bytes for entry in manifest.files.values())
    with screen.progress("Downloading", size) as meter:
        for name, entry in manifest.files.items():
            fetch_file(Place(store, f"{root}/{name}", folder / name, entry), meter, screen)
    write_card(folder, finetune, checkpoint, merged=True)
    what = f"the base model with {asked.finetune} at {checkpoint.name} merged in"
    screen.result(f"{folder} holds {what} ({say_bytes(size)}, {checkpoint.digest}).")


def wait_for_merge(connection: Connection, finetune: FineTune, request: str, seconds: float, screen: Screen) -> None:
    """Wait until a request is answered, and tell what it waits for. Once it is taken up, its Job has a deadline.

    Raises:
        CliError: It failed, or nobody took it up in time.
    """
    deadline, told = time.monotonic() + seconds, ""
    while True:
        found = insist(lambda: find_finetune(connection, finetune.metadata.name), screen.say).status.merged
        if found is not None and found.request == request:
            if found.phase == "Ready":
                return
            if found.phase == "Failed":
                raise CliError(f"The adapter could not be merged: {found.message}")
            state = f"{found.phase}: {found.message}"
        elif time.monotonic() > deadline:
            where = "Does the operator run, and is this one of its namespaces?"
            raise CliError(f"Nobody took up the request to merge within {seconds:.0f} s. {where}")
        else:
            state = "the operator has not seen the request yet."
        if state != told:
            screen.say(f"Waiting for the merged model: {state}")
            told = state
        waiting.sleep(_LOOK_SECONDS)


def _is_merged(found: MergedStatus | None, checkpoint: CheckpointStatus) -> bool:
    return found is not None and found.phase == "Ready" and found.digest == checkpoint.digest


def _fetch_manifest(store: StoreClient, root: str, checkpoint: CheckpointStatus, screen: Screen) -> MergedManifest:
    content = insist(lambda: read_all(store.open("GET", f"{root}/{MANIFEST}")), screen.say)
    try:
        manifest = MergedManifest.model_validate_json(content)
    except ValidationError as error:
        raise CliError(f"The manifest of the merged {checkpoint.name} is not valid: it is damaged.") from error
    if manifest.adapter_digest != checkpoint.digest:
        told = f"{manifest.adapter_digest} merged in, but status says {checkpoint.digest}"
        raise CliError(f"The merged model has {told}: run the same command again.")
    wrong = [name for name in manifest.files if not _FILE.fullmatch(name)]
    if wrong or not any(name.endswith(_WEIGHTS) for name in manifest.files):
        raise CliError(
            f"The merged {checkpoint.name} is no model: it names {', '.join(map(repr, sorted(manifest.files)))}."
        )
    return manifest
