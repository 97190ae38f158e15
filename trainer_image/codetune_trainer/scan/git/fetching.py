"""Makes a git source ready to be read: secret, mirror, submodules; the last good commit when that fails."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from codetune_api.project import GitSource, Source

from codetune_trainer.config import Places
from codetune_trainer.errors import DiskFull, SourceError, SourceUnavailable, UnsupportedSource
from codetune_trainer.scan.archive.fetching import find_secret
from codetune_trainer.scan.git.assembling import Assembly
from codetune_trainer.scan.git.cache import mirror_name, modules_folder
from codetune_trainer.scan.git.mirror import Mirror
from codetune_trainer.scan.git.reading import close_off, mark_damaged
from codetune_trainer.scan.git.running import Damaged
from codetune_trainer.scan.git.secrets import Credentials, check_credentials
from codetune_trainer.scan.git.tree import GitTree
from codetune_trainer.scan.git.urls import Remote, read_url
from codetune_trainer.scan.records import Found

_TOLD = 3


@dataclass(frozen=True)
class FetchedGit:
    """A git source that can be read."""

    folder: Path
    """A bare repository."""
    commit: str
    tree: GitTree
    environment: Mapping[str, str]
    """git's, without the network; with it the folder has all objects of the tree."""
    warning: str = ""
    """What a person should know about it though it could be read."""
    reason: str = ""
    """Why the commit is a former one, or lacks parts that may be had later; empty when it is all there is now."""


def fetch_git(
    source: Source, git: GitSource, cache: Path, places: Places, wants: Callable[[Found], bool], known: str = ""
) -> FetchedGit:
    """Have a commit in the store with everything of it that a scan reads.

    Args:
        source: As in spec.
        git: Its `git`.
        cache: Folder in the store for what is fetched.
        places: The pod's folders.
        wants: Whether a file of this path and size would be read.
        known: The commit of the last scan, when that is to be scanned again; what is here of it is not fetched.

    Raises:
        SourceError: It can't be used, and no former commit of this revision and path may stand in for it. One that is
            to be held out can't be used without a submodule of it: what that holds could be trained on.
        DiskFull: Nor may one stand in where the store has no room for more.
    """
    remote = read_url(git.url, places.file_root)
    path = _read_path(git.path)
    credentials, refused = _read_credentials(source, places, remote)
    home = places.scratch / "git" / source.name
    modules = modules_folder(cache, git, source.name)
    begin = partial(Assembly, git, remote, credentials, home, modules, places.file_root, wants)
    assembly = begin()
    place = (remote, cache / f"{mirror_name(git)}.git", source.name, path, git.revision)
    mirror = assembly.open(*place)
    commit, warning, reason = _sync(mirror, known, refused)
    fetched = _assemble(assembly, mirror, commit, warning, reason)
    if source.use == "HoldOut" and assembly.lacking:
        other = begin(stands_in=True)
        return _stand_in(other, other.open(*place), assembly.sum_up_lacking(), warning)
    if source.use == "HoldOut" and git.submodules:
        assembly.keep_whole()
    assembly.prune()
    return fetched


def _assemble(assembly: Assembly, mirror: Mirror, commit: str, warning: str, reason: str) -> FetchedGit:
    """A commit that is here with its submodules and LFS objects; what is said of it already, and what comes to that."""
    try:
        tree = assembly.build(mirror, commit)
    except Damaged as error:
        mark_damaged(mirror.folder, mirror.here.reading)
        message = f"What was fetched of {mirror.remote.shown} is damaged ({error}). {warning}".strip()
        raise SourceUnavailable(message, "Nothing is to be done: it is fetched anew as soon as that works.") from error
    told = assembly.troubles[:_TOLD]
    more = len(assembly.troubles) - len(told)
    warning = " ".join(
        [*([warning] if warning else []), *told, *([f"{more} more troubles like these."] if more else [])]
    )
    if assembly.away and not reason:
        reason = SourceUnavailable.reason  # so that it is tried again, as a source is that could not be fetched at all
    environment = close_off(mirror.environment, *(other.folder for other, _ in assembly.used[1:]))
    return FetchedGit(mirror.folder, commit, tree, environment, warning, reason)


def _stand_in(assembly: Assembly, mirror: Mirror, lacking: SourceError, warning: str) -> FetchedGit:
    """Of a source that is to be held out, the last commit that came with all of its submodules.

    Args:
        assembly: A new one.
        mirror: Holds that commit.
        lacking: What is wrong with the submodules of the commit that should be read.
        warning: What is said of that commit already.

    Raises:
        SourceError: There is no such commit, or it is no longer whole: what is wrong with the newer one.
    """
    last = mirror.last_commit()
    if last is None:
        raise lacking
    used = f"It could not be fetched with all of its submodules; commit {last[:12]} of an earlier scan is used."
    said = " ".join(filter(None, [used, lacking.message, lacking.hint, warning]))
    fetched = _assemble(assembly, mirror, last, said, lacking.reason)
    if assembly.lacking:
        raise lacking
    return fetched


def _read_credentials(source: Source, places: Places, remote: Remote) -> tuple[Credentials | None, SourceError | None]:
    """The source's Secret, or why it can't be used: what is here already can be read without."""
    try:
        return check_credentials(source.name, find_secret(source, places), remote), None
    except SourceError as error:
        return None, error


def _sync(mirror: Mirror, known: str, refused: SourceError | None) -> tuple[str, str, str]:
    """The commit, and what to say of it and why when it is not the current one."""
    try:
        if known and mirror.last_commit() == known:
            return mirror.sync_commit(known), "", ""
        if refused is not None:
            raise refused
        return mirror.sync(), "", ""
    except (SourceError, DiskFull) as error:
        last = mirror.last_commit()
        if last is None:
            raise
        # Whatever ails a repository or the way to it must not take away data that is here.
        warning = f"It could not be fetched; commit {last[:12]} of the last scan is used. {error.message} {error.hint}"
        return last, warning, error.reason


def _read_path(path: str) -> str:
    parts = [part for part in path.split("/") if part not in {"", "."}]
    if path.startswith("/") or ".." in parts or "\0" in path:
        hint = "git.path must be a folder inside the repository: no leading / and no `..`."
        raise UnsupportedSource(f"git.path {path!r} leaves the repository.", hint)
    return "/".join(parts)
