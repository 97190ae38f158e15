"""The model hub: what a repository holds at which commit, its files, and its refusals in our words.

Only the program `fetch` imports this: it alone has the hub's token.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from codetune_api.contracts import ENV_HUB_TOKEN

from codetune_trainer.errors import (
    AuthenticationFailed,
    GatedModel,
    ModelNotFound,
    ModelUnavailable,
    RevisionNotFound,
    TrainerError,
)

COMMIT = re.compile(r"[0-9a-f]{40}")
ENV_ENDPOINT = "HF_ENDPOINT"
"""Base URL of a mirror; unset: the public hub."""
_PUBLIC = "https://huggingface.co"


@dataclass(frozen=True)
class HubFile:
    """A file on the hub with what proves its content."""

    name: str
    bytes: int | None
    sha256: str | None
    """Of a large file."""
    git_digest: str | None
    """SHA-1 as git takes it, of a small file."""


def list_files(repository: str, revision: str) -> tuple[str, list[HubFile]]:
    """The commit that a revision means now, and its files. Raises: ModelUnavailable, and errors of the library."""
    # Set before the library is imported: it reads its settings then.
    os.environ.update({"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"})
    from huggingface_hub import HfApi

    api = HfApi(endpoint=_endpoint(), token=_token())
    info = api.model_info(repository, revision=revision, files_metadata=True, timeout=60)
    if not info.sha or not COMMIT.fullmatch(info.sha):
        hint = "Check that hub.endpoint in the operator's settings is a Hugging Face hub or a mirror of it."
        raise ModelUnavailable(f"The hub names no commit for {repository}: {info.sha!r}.", hint)
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


def download_file(repository: str, commit: str, file: HubFile, part: Path) -> None:
    """Bring the content of a file; what a cut download left of it is gone on with. Raises: errors of the library.

    The library's own `hf_hub_download` begins anew after a restart, and weights are many gigabytes.
    """
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get

    url = hf_hub_url(repository, file.name, revision=commit, endpoint=_endpoint())
    with part.open("ab") as content:
        here = content.tell()
        if file.bytes is None or here > file.bytes:
            content.truncate(0)
            here = 0
        if here == 0 or here != file.bytes:
            token = _token()
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            http_get(url, content, resume_size=here, headers=headers)


@contextmanager
def hub_errors(repository: str, revision: str) -> Iterator[None]:
    """Say the library's errors in our words. Raises: TrainerError; OSError, when it is about the disk."""
    import httpx2
    from huggingface_hub import errors

    try:
        yield
    except errors.HfHubHTTPError as error:
        raise _explain(error, repository, revision) from error
    except (httpx2.HTTPError, errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError, ConnectionError) as error:
        hint = "Check the network and proxy of the cluster, or set hub.endpoint in the operator's settings to a mirror."
        where = _endpoint() or _PUBLIC
        said = f"The hub {where} can't be reached for {repository}: {type(error).__name__}: {error}"
        raise ModelUnavailable(said, hint) from error
    except OSError as error:
        if error.errno is not None:
            raise
        # The library's own: what came has another size than was announced.
        hint = "It is tried again; if that goes on, a proxy on the way cuts or changes files."
        raise ModelUnavailable(f"A file of {repository} did not come whole: {error}", hint) from error


def _explain(error: Exception, name: str, revision: str) -> TrainerError:
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        hint = "Accept its terms on the hub with your account, and put a token of that account into modelSecretRef."
        return GatedModel(f"{name} is gated, and the hub does not give it to this account.", hint)
    if isinstance(error, errors.RevisionNotFoundError):
        hint = "Name a branch, tag or commit that exists: hf://ORGANISATION/NAME@REVISION."
        return RevisionNotFound(f"{name} has no revision {revision!r}.", hint)
    if isinstance(error, errors.RepositoryNotFoundError | errors.DisabledRepoError):
        hint = "Check its name. If it is private, name a Secret with a `token` that may read it in modelSecretRef."
        return ModelNotFound(f"The hub has no model {name}, or hides it from this account.", hint)
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in {401, 403}:
        hint = "Put a valid token that may read the model into the Secret that modelSecretRef names, key `token`."
        return AuthenticationFailed(f"The hub refuses the token for {name} (status {status}).", hint)
    hint = "It is tried again; if that goes on, see the hub's status page or use a mirror (hub.endpoint)."
    return ModelUnavailable(f"The hub answered with status {status} when asked for {name}: {error}", hint)


def _endpoint() -> str | None:
    return os.environ.get(ENV_ENDPOINT) or None


def _token() -> str | bool:
    # False: no token at all; None would let the library look for one in the home folder.
    return os.environ.get(ENV_HUB_TOKEN) or False
