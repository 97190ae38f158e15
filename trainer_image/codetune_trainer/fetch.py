"""`python -m codetune_trainer fetch`: bring a base model from the hub or a bucket into the store, once, verified.

It lands in `models/<org>/<name>/<commit>`; `$CODETUNE_SCRATCH/model` becomes a link to it. Only this program has the
hub's token and talks to the hub. Weights in pickles are never fetched: loading one runs its code.
"""

import fnmatch
import hashlib
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from codetune_api.artifacts import model_folder
from codetune_api.contracts import FetchConfig, FetchedModel
from codetune_api.protocol import ModelEvent
from codetune_bucket.errors import ObjectDamaged
from pydantic import ValidationError

from codetune_trainer import fetch_bucket, shelving
from codetune_trainer.config import Places, inside, load_config, load_places
from codetune_trainer.errors import (
    DiskFull,
    ModelNotFound,
    ModelUnavailable,
    PickledWeights,
    UnsupportedModel,
    say_room,
)
from codetune_trainer.fetch_progress import held_bytes, telling
from codetune_trainer.hub import COMMIT, HubFile, download_file, hub_errors, list_files
from codetune_trainer.leftovers import locked, partial_folder, remove_abandoned
from codetune_trainer.manifests import sync_folder
from codetune_trainer.reporting import Reporter

_REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")
_CONFIG = "config.json"
_WANTED = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja", "*.tiktoken")
"""Files of a model's top folder that training and serving read; sub-folders hold other formats of the same weights."""
_WEIGHTS = "*.safetensors"
_SECOND_COPY = "consolidated*.safetensors"
"""The same weights in the publisher's own layout."""
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
_CHUNK = 1 << 20


def main() -> int:
    """Fetch as the pod's configuration says; returns the exit code."""
    config = load_config(FetchConfig)
    places = load_places()
    fetch(config, places, Reporter(config.nonce))
    return 0


def fetch(config: FetchConfig, places: Places, reporter: Reporter) -> Path:
    """Have the model in the store and link to it; returns its folder.

    Raises:
        TrainerError: By what is wrong: ModelNotFound, RevisionNotFound, GatedModel, AuthenticationFailed,
            UnsupportedModel, ModelUnavailable or DiskFull.
    """
    if config.uri is not None:
        return _fetch_from_bucket(config, config.uri, places, reporter)
    repository = config.repository
    if not _REPOSITORY.fullmatch(repository):
        raise ModelNotFound(f"{repository!r} is no name of a hub model.", "Write hf://ORGANISATION/NAME.")
    revision = _read_pin(config, places) or config.revision
    reporter.stage("Fetching", f"base model {repository} at {revision}")
    folder = _find_pinned(repository, revision, places)
    if folder is None:
        with hub_errors(repository, revision):
            commit, files = list_files(repository, revision)
            chosen = choose_files(repository, files)
            folder = places.store / model_folder(repository, commit)
            _settle(config, commit, places, reporter)
            remove_abandoned(folder.parents[2], keep=partial_folder(folder))
            with locked(folder.parent):
                if not folder.is_dir() and not _take_kept(repository, commit, places):
                    _download(config, commit, chosen, folder, reporter)
                    shelving.keep(places.mirror, model_folder(repository, commit))
    else:
        _settle(config, folder.name, places, reporter)
    _check(config, folder, f"hf://{repository}@{folder.name[:12]}")
    _link(places.scratch / "model", folder)
    return folder


def _fetch_from_bucket(config: FetchConfig, uri: str, places: Places, reporter: Reporter) -> Path:
    """The same for a model in a bucket. Raises: TrainerError, BucketError."""
    reporter.stage("Fetching", f"base model {uri}")
    model = fetch_bucket.list_model(uri)
    chosen = choose_files(uri, model.files)
    folder = places.store / model.folder
    with locked(folder.parent):
        if not folder.is_dir():
            partial = _make_partial(folder)
            _check_room(uri, chosen, partial)
            with telling(reporter, uri, chosen, partial):
                model.bring([file.name for file in chosen], partial, folder)
    _check(config, folder, uri)
    _link(places.scratch / "model", folder)
    return folder


def choose_files(repository: str, files: Sequence[HubFile]) -> list[HubFile]:
    """The files that make the model.

    Raises:
        UnsupportedModel: It has no configuration, or no weights in safetensors; PickledWeights when it has others.
    """
    top = [file for file in files if "/" not in file.name and "\\" not in file.name and not file.name.startswith(".")]
    chosen = [file for file in top if _matches(file.name, _WANTED)]
    weights = [file for file in chosen if fnmatch.fnmatchcase(file.name, _WEIGHTS)]
    own = [file for file in weights if not fnmatch.fnmatchcase(file.name, _SECOND_COPY)]
    if not weights:
        hint = "Use a model with .safetensors files; the hub's convert space can make them for yours."
        if any(_matches(file.name, _PICKLES) for file in top):
            text = f"{repository} has its weights only as pickles, which run code when they are loaded."
            raise PickledWeights(text, hint)
        raise UnsupportedModel(f"{repository} has no weights.", hint)
    if not any(file.name == _CONFIG for file in top):
        hint = "Use the repository of the model itself, not of an adapter or of another format of it."
        raise UnsupportedModel(f"{repository} has no config.json.", hint)
    kept = [file for file in chosen if not own or file not in weights or file in own]
    # The configuration comes first: it tells whether the weights are worth fetching.
    return sorted(kept, key=lambda file: file.name != _CONFIG)


def verify(path: Path, file: HubFile) -> str:
    """What is wrong with a downloaded file, "" when nothing is."""
    size = path.stat().st_size
    if file.bytes is not None and size != file.bytes:
        return f"it has {size} bytes instead of {file.bytes}"
    expected = file.sha256 or file.git_digest
    if expected is None:
        return ""
    digest = hashlib.sha256() if file.sha256 else hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    with path.open("rb") as content:
        while chunk := content.read(_CHUNK):
            digest.update(chunk)
    return "" if digest.hexdigest() == expected else f"its digest is {digest.hexdigest()} instead of {expected}"


def _read_pin(config: FetchConfig, places: Places) -> str | None:
    """The commit that an earlier attempt of the same run settled on."""
    if config.pin is None:
        return None
    pin = inside(places.store, config.pin, "pin")
    places.mirror.pull_file(config.pin)
    try:
        found = FetchedModel.model_validate_json(pin.read_bytes())
    except (OSError, ValidationError):
        return None
    return found.commit if (found.repository, found.revision) == (config.repository, config.revision) else None


def _settle(config: FetchConfig, commit: str, places: Places, reporter: Reporter) -> None:
    """From now on this run has this commit, whatever its branch moves to; and say so."""
    if config.pin is not None:
        pin = inside(places.store, config.pin, "pin")
        found = FetchedModel(repository=config.repository, revision=config.revision, commit=commit)
        pin.parent.mkdir(parents=True, exist_ok=True)
        beside = pin.with_name(f".{pin.name}.{os.getpid()}")
        beside.write_text(found.model_dump_json(by_alias=True), encoding="utf-8")
        beside.replace(pin)
        places.mirror.push_file(config.pin)
    reporter.emit(ModelEvent(repository=config.repository, commit=commit))


def _find_pinned(repository: str, revision: str, places: Places) -> Path | None:
    """The model's folder when its commit is named and here already: then the hub is not asked at all."""
    if not COMMIT.fullmatch(revision):
        return None
    folder = places.store / model_folder(repository, revision)
    with locked(folder.parent):
        return folder if folder.is_dir() or _take_kept(repository, revision, places) else None


def _take_kept(repository: str, commit: str, places: Places) -> bool:
    """Have a model that another pod has fetched. What is damaged there is fetched and kept anew."""
    if not places.mirror.is_remote:
        return False
    path = model_folder(repository, commit)
    try:
        return shelving.take(places.mirror, path, _make_partial(places.store / path))
    except ObjectDamaged as error:
        print(f"What the bucket keeps of {repository} can't be used: {error}", flush=True)
        places.mirror.remove(path)  # else it would count as kept, since what is told of it is right
        return False


def _check(config: FetchConfig, folder: Path, uri: str) -> None:
    """Refuse what can't be trained by its configuration. A server knows by itself what it serves.

    Raises: UnsupportedModel, InvalidParameters.
    """
    if config.training:
        from codetune_trainer.architectures import check_embeddings, read_model_config

        check_embeddings(read_model_config(folder, uri), uri, asked=config.train_embeddings)


def _download(config: FetchConfig, commit: str, files: list[HubFile], folder: Path, reporter: Reporter) -> None:
    """Into a folder beside, which a next attempt goes on with; it gets its name when every file is proven."""
    repository = config.repository
    partial = _make_partial(folder)
    _check_room(repository, files, partial)
    with telling(reporter, repository, files, partial):
        for file in files:
            if not (partial / file.name).is_file():
                _download_file(repository, commit, file, partial)
            if file.name == _CONFIG:
                _check(config, partial, f"hf://{repository}@{commit[:12]}")
    sync_folder(partial)
    partial.rename(folder)


def _make_partial(folder: Path) -> Path:
    """Where a model comes together."""
    partial = partial_folder(folder)
    partial.mkdir(parents=True, exist_ok=True)
    return partial


def _download_file(repository: str, commit: str, file: HubFile, folder: Path) -> None:
    """A file gets its name when it is proven. Raises: ModelUnavailable."""
    part = folder / f".{file.name}.part"
    download_file(repository, commit, file, part)
    if wrong := verify(part, file):
        part.unlink()
        hint = "It is fetched again on the next attempt; if that goes on, the mirror or a proxy changes files."
        raise ModelUnavailable(f"{file.name} of {repository} came damaged: {wrong}.", hint)
    part.rename(folder / file.name)


def _check_room(repository: str, files: Sequence[HubFile], partial: Path) -> None:
    """Say before the first byte that the volume is too small, not hours later. Raises: DiskFull."""
    missing = sum(file.bytes or 0 for file in files) - held_bytes(partial)
    free = shutil.disk_usage(partial).free
    if missing > free:
        room = f"{missing / 1e9:.1f} GB more in the artifact store, whose volume has {free / 1e9:.1f} GB left"
        hint = say_room()
        raise DiskFull(f"{repository} needs {room}.", hint)


def _link(link: Path, folder: Path) -> None:
    link.parent.mkdir(parents=True, exist_ok=True)
    beside = link.with_name(f".{link.name}.{os.getpid()}")
    beside.unlink(missing_ok=True)
    beside.symlink_to(folder)
    beside.replace(link)


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
