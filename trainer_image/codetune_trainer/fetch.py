"""`python -m codetune_trainer fetch`: bring a base model from the hub into the store, once, verified.

It lands in `models/<org>/<name>/<commit>`; `$CODETUNE_SCRATCH/model` becomes a link to it. Only this program has the
hub's token and talks to the hub. Weights in pickles are never fetched: loading one runs its code.
"""

import fcntl
import fnmatch
import hashlib
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from codetune_api.artifacts import model_folder
from codetune_api.contracts import ENV_HUB_TOKEN, FetchConfig

from codetune_trainer.config import Places, load_config, load_places
from codetune_trainer.errors import (
    AuthenticationFailed,
    GatedModel,
    ModelNotFound,
    ModelUnavailable,
    RevisionNotFound,
    TrainerError,
    UnsupportedModel,
)
from codetune_trainer.manifests import sync_folder
from codetune_trainer.reporting import Reporter

_REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_WANTED = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja", "*.tiktoken")
"""Files of a model's top folder that training and serving read; sub-folders hold other formats of the same weights."""
_WEIGHTS = "*.safetensors"
_SECOND_COPY = "consolidated*.safetensors"
"""The same weights in the publisher's own layout."""
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
_CHUNK = 1 << 20


@dataclass(frozen=True)
class HubFile:
    """A file on the hub with what proves its content."""

    name: str
    bytes: int | None
    sha256: str | None
    """Of a large file."""
    git_digest: str | None
    """SHA-1 as git takes it, of a small file."""


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
            UnsupportedModel or ModelUnavailable.
    """
    if not _REPOSITORY.fullmatch(config.repository):
        raise ModelNotFound(f"{config.repository!r} is no name of a hub model.", "Write hf://ORGANISATION/NAME.")
    reporter.stage("Fetching", f"base model {config.repository} at {config.revision}")
    folder = _find_pinned(config, places)
    if folder is None:
        with _hub_errors(config):
            commit, files = _ask(config)
            folder = places.store / model_folder(config.repository, commit)
            with _locked(folder.parent):
                if not folder.is_dir():
                    _download(config.repository, commit, choose_files(config.repository, files), folder, reporter)
    _link(places.scratch / "model", folder)
    return folder


def choose_files(repository: str, files: Sequence[HubFile]) -> list[HubFile]:
    """The files that make the model.

    Raises:
        UnsupportedModel: It has no configuration, or no weights in safetensors.
    """
    top = [file for file in files if "/" not in file.name and "\\" not in file.name and not file.name.startswith(".")]
    chosen = [file for file in top if _matches(file.name, _WANTED)]
    weights = [file for file in chosen if fnmatch.fnmatchcase(file.name, _WEIGHTS)]
    own = [file for file in weights if not fnmatch.fnmatchcase(file.name, _SECOND_COPY)]
    if not weights:
        pickled = any(_matches(file.name, _PICKLES) for file in top)
        said = "has its weights only as pickles, which run code when they are loaded" if pickled else "has no weights"
        hint = "Use a model with .safetensors files; the hub's convert space can make them for yours."
        raise UnsupportedModel(f"{repository} {said}.", hint)
    if not any(file.name == "config.json" for file in top):
        hint = "Use the repository of the model itself, not of an adapter or of another format of it."
        raise UnsupportedModel(f"{repository} has no config.json.", hint)
    return [file for file in chosen if not own or file not in weights or file in own]


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


def _find_pinned(config: FetchConfig, places: Places) -> Path | None:
    """The model's folder when its commit is named and here already: then the hub is not asked at all."""
    if not _COMMIT.fullmatch(config.revision):
        return None
    folder = places.store / model_folder(config.repository, config.revision)
    return folder if folder.is_dir() else None


def _ask(config: FetchConfig) -> tuple[str, list[HubFile]]:
    """The commit that a revision means, and its files."""
    # Set before the library is imported: it reads its settings then.
    os.environ.update({"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"})
    from huggingface_hub import HfApi

    api = HfApi(endpoint=_endpoint(), token=_token())
    info = api.model_info(config.repository, revision=config.revision, files_metadata=True, timeout=60)
    if not info.sha or not _COMMIT.fullmatch(info.sha):
        hint = "Check that hub.endpoint in the operator's settings is a Hugging Face hub or a mirror of it."
        raise ModelUnavailable(f"The hub names no commit for {config.repository}: {info.sha!r}.", hint)
    files = [
        HubFile(
            name=sibling.rfilename,
            bytes=sibling.size,
            sha256=sibling.lfs.sha256 if sibling.lfs else None,
            git_digest=sibling.blob_id if sibling.blob_id and not sibling.lfs else None,
        )
        for sibling in info.siblings or []
    ]
    return info.sha, files


def _download(repository: str, commit: str, files: list[HubFile], folder: Path, reporter: Reporter) -> None:
    """Into a folder beside, which a next attempt goes on with; it gets its name when every file is proven."""
    from huggingface_hub import hf_hub_download

    partial = folder.with_name(f".{commit}.partial")
    partial.mkdir(parents=True, exist_ok=True)
    for number, file in enumerate(files, start=1):
        reporter.stage("Fetching", f"{file.name} of {repository} ({number} of {len(files)})")
        hf_hub_download(
            repository,
            file.name,
            revision=commit,
            local_dir=partial,
            endpoint=_endpoint(),
            token=_token(),
        )
        wrong = verify(partial / file.name, file)
        if wrong:
            (partial / file.name).unlink()
            hint = "It is fetched again on the next attempt; if that goes on, the mirror or a proxy changes files."
            raise ModelUnavailable(f"{file.name} of {repository} came damaged: {wrong}.", hint)
    shutil.rmtree(partial / ".cache", ignore_errors=True)  # the library's notes for resuming
    sync_folder(partial)
    partial.rename(folder)


@contextmanager
def _locked(parent: Path) -> Iterator[None]:
    """One download of a model at a time; the lock goes with its process."""
    parent.mkdir(parents=True, exist_ok=True)
    with (parent / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def _hub_errors(config: FetchConfig) -> Iterator[None]:
    """Say the library's errors in our words."""
    import httpx2
    from huggingface_hub import errors

    try:
        yield
    except errors.HfHubHTTPError as error:
        raise _explain(error, config) from error
    except (httpx2.HTTPError, errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError, ConnectionError) as error:
        hint = "Check the network and proxy of the cluster, or set hub.endpoint in the operator's settings to a mirror."
        where = _endpoint() or "https://huggingface.co"
        said = f"The hub {where} can't be reached for {config.repository}: {type(error).__name__}: {error}"
        raise ModelUnavailable(said, hint) from error


def _explain(error: Exception, config: FetchConfig) -> TrainerError:
    from huggingface_hub import errors

    name = config.repository
    if isinstance(error, errors.GatedRepoError):
        hint = "Accept its terms on the hub with your account, and put a token of that account into modelSecretRef."
        return GatedModel(f"{name} is gated, and the hub does not give it to this account.", hint)
    if isinstance(error, errors.RevisionNotFoundError):
        hint = "Name a branch, tag or commit that exists: hf://ORGANISATION/NAME@REVISION."
        return RevisionNotFound(f"{name} has no revision {config.revision!r}.", hint)
    if isinstance(error, errors.RepositoryNotFoundError | errors.DisabledRepoError):
        hint = "Check its name. If it is private, name a Secret with a `token` that may read it in modelSecretRef."
        return ModelNotFound(f"The hub has no model {name}, or hides it from this account.", hint)
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in {401, 403}:
        hint = "Put a valid token that may read the model into the Secret that modelSecretRef names, key `token`."
        return AuthenticationFailed(f"The hub refuses the token for {name} (status {status}).", hint)
    hint = "It is tried again; if that goes on, see the hub's status page or use a mirror (hub.endpoint)."
    return ModelUnavailable(f"The hub answered with status {status} when asked for {name}: {error}", hint)


def _link(link: Path, folder: Path) -> None:
    link.parent.mkdir(parents=True, exist_ok=True)
    beside = link.with_name(f".{link.name}.{os.getpid()}")
    beside.unlink(missing_ok=True)
    beside.symlink_to(folder)
    beside.replace(link)


def _endpoint() -> str | None:
    return os.environ.get("HF_ENDPOINT") or None


def _token() -> str | bool:
    # False: no token at all; None would let the library look for one in the home folder.
    return os.environ.get(ENV_HUB_TOKEN) or False


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
