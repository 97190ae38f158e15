"""Where the store keeps what was fetched for git sources, and what of it is no longer needed."""

import hashlib
import shutil
from pathlib import Path

from codetune_api.project import GitSource, Source

_PREFIX = "git-"


def mirror_name(git: GitSource) -> str:
    """By URL and path, not by base name or source: two repositories never share a folder, one in two sources does.

    By path, since a mirror has the files below one path only.
    """
    path = git.path.strip("/")
    named = f"{git.url}\0{path}" if path else git.url
    return f"{_PREFIX}{hashlib.sha256(named.encode()).hexdigest()[:24]}"


def modules_folder(cache: Path, git: GitSource, source: str) -> Path:
    """Where the mirrors of a source's submodules are."""
    return cache / f"{mirror_name(git)}.modules" / source


def prune_mirrors(sources: list[Source], cache: Path) -> None:
    """Remove what was fetched for repositories and submodules that the Project no longer has.

    Args:
        sources: As in spec.
        cache: Folder in the store for what is fetched.
    """
    kept = {mirror_name(source.git) for source in sources if source.git is not None}
    modules = {modules_folder(cache, source.git, source.name) for source in sources if source.git is not None}
    old = [path for path in cache.glob(f"{_PREFIX}*") if path.stem not in kept]
    for path in [*old, *(set(cache.glob(f"{_PREFIX}*.modules/*")) - modules)]:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
