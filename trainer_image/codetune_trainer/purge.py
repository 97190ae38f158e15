"""`python -m codetune_trainer purge`: remove what a deleted resource left in the store. Idempotent.

Also what a scan calls to remove datasets that nobody uses any more.
"""

import errno
import re
import shutil
import time
from collections.abc import Iterable
from pathlib import Path

from codetune_api.contracts import PurgeConfig
from codetune_bucket.mirroring import Mirror

from codetune_trainer.config import inside, load_config, load_places
from codetune_trainer.errors import InvalidParameters
from codetune_trainer.reporting import Reporter

_ATTEMPTS = 5
_SECONDS_BETWEEN_ATTEMPTS = 0.5
_LEAST_DEPTH = 3
"""Folders of resources lie at least at `<namespace>/<kind>/<name>`; nothing above is anybody's to remove."""


_DATASET = re.compile(r"[0-9a-f]{64}")


def main() -> int:
    """Remove as the pod's configuration says; returns the exit code."""
    config = load_config(PurgeConfig)
    places = load_places()
    reporter = Reporter(config.nonce)
    folders = [locate(places.store, path) for path in config.paths]  # all are checked before the first one goes
    for path, folder in zip(config.paths, folders, strict=True):
        reporter.stage("Purging", path)
        places.mirror.remove(path)
        remove(folder)
        remove_empty_parent(folder)
    return 0


def locate(store: Path, relative: str) -> Path:
    """The folder that a path names, certain to lie in the store.

    Raises:
        InvalidParameters: The path leaves the store, by its spelling or through a link, or is no resource's folder.
    """
    folder = inside(store, relative, "paths")
    root = store.resolve()
    hint = "Give folders of resources: <namespace>/projects/<name> or <namespace>/finetunes/<name>/<uid>."
    if folder.parent.resolve() != root / folder.parent.relative_to(store):
        raise InvalidParameters(f"paths {relative!r} leads through a link, so it may lie outside the store.", hint)
    if len(folder.relative_to(store).parts) < _LEAST_DEPTH:
        raise InvalidParameters(f"paths {relative!r} is more than one resource's folder.", hint)
    return folder


def remove(folder: Path) -> None:
    """Remove a folder with everything in it; a link goes itself, not what it points to. Nothing there: nothing done.

    Raises:
        OSError: It is still not empty after several attempts, because somebody goes on writing into it.
    """
    if folder.is_symlink() or folder.is_file():
        folder.unlink(missing_ok=True)
        return
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            shutil.rmtree(folder)
            return
        except FileNotFoundError:
            if not folder.exists():
                return
        except OSError as error:
            # A pod that is ending may still write its last files.
            if error.errno != errno.ENOTEMPTY or attempt == _ATTEMPTS:
                raise
        time.sleep(_SECONDS_BETWEEN_ATTEMPTS)
    raise OSError(errno.ENOTEMPTY, "files keep appearing and going", str(folder))


def prune_datasets(mirror: Mirror, project: str, keep: Iterable[str]) -> list[str]:
    """Remove the datasets of a Project but those to keep; whatever else is in its folder stays.

    Args:
        mirror: The store.
        project: The Project's folder in it.
        keep: Revisions, `sha256:…`.

    Returns:
        The revisions that were removed.

    Raises:
        OSError: One can't be removed; those before it are gone.
    """
    kept = {revision.removeprefix("sha256:") for revision in keep}
    folder = mirror.root / project
    old = sorted(
        name
        for name in mirror.folders(project)
        if _DATASET.fullmatch(name) and name not in kept and not (folder / name).is_symlink()
    )
    for name in old:
        mirror.remove(f"{project}/{name}")
        remove(folder / name)
    return [f"sha256:{name}" for name in old]


def remove_empty_parent(folder: Path) -> None:
    """Remove the folder above when it is empty now, e.g. `finetunes/<name>` after its last run."""
    try:
        folder.parent.rmdir()
    except OSError as error:
        if error.errno not in {errno.ENOTEMPTY, errno.ENOENT, errno.EEXIST}:
            raise
