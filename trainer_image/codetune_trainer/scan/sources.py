"""Makes each source of a Project ready to be read, whatever it is, and says what is wrong with those that are not."""

import hashlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from codetune_api.project import GitSource, Source, VolumeSource

from codetune_trainer.config import Places
from codetune_trainer.errors import AuthenticationFailed, SourceError, SourceUnavailable, UnsupportedSource
from codetune_trainer.scan.git_environment import build_environment, check_credentials
from codetune_trainer.scan.git_mirror import Mirror
from codetune_trainer.scan.git_objects import list_commit
from codetune_trainer.scan.git_urls import Remote, read_url
from codetune_trainer.scan.records import Found
from codetune_trainer.scan.upload_tree import UploadPlace, find_version, list_version
from codetune_trainer.scan.volumes import find_root, list_folder

_MIRROR_PREFIX = "git-"
_TOLD = 3
"""Sources whose trouble is told in full when none can be used."""


@dataclass(frozen=True)
class Readable:
    """A source whose files can be listed and read; a plain value, so that it can be sent to other processes."""

    name: str
    kind: str
    """`git`, `upload` or `volume`."""
    root: Path
    """The bare repository, the upload's folder in the store, or the folder on the volume."""
    commit: str = ""
    """git's commit, or the upload's version."""
    environment: Mapping[str, str] | None = None
    """git's."""
    warning: str = ""
    """What a person should know about it though it could be read."""
    reason: str = ""
    """Why what is read is not what the source has now; empty when it is."""

    def list(self) -> Iterator[Found]:
        """Every file, in the order of their paths' bytes."""
        if self.kind == "git":
            return list_commit(self.root, self.commit, self.environment or {})
        if self.kind == "upload":
            return list_version(self.root, self.commit)
        return list_folder(self.root)


def prepare(source: Source, cache: Path, places: Places) -> Readable:
    """Fetch a source, or find it where it is mounted.

    Args:
        source: As in spec.
        cache: Folder in the store for what is fetched.
        places: The pod's folders.

    Raises:
        SourceError: It can't be used.
    """
    if source.git is not None:
        return _prepare_git(source, source.git, cache, places)
    if source.volume is not None:
        return _prepare_volume(source.name, source.volume, places)
    if source.upload is not None:
        place = UploadPlace.beside(cache, source.name)
        return Readable(source.name, "upload", place.folder.resolve(), find_version(place))
    kind = "archive" if source.archive is not None else "unknown"
    hint = "Use git, upload or volume; archive comes with a later version of Codetune."
    raise UnsupportedSource(f"Source {source.name!r} is of kind {kind!r}, which this version can't fetch.", hint)


def prune_cache(sources: list[Source], cache: Path) -> None:
    """Remove what was fetched for sources that the Project no longer has."""
    kept = {_mirror_name(source.git.url) for source in sources if source.git is not None}
    for folder in cache.glob(f"{_MIRROR_PREFIX}*"):
        if folder.stem in kept:
            continue
        if folder.is_dir() and not folder.is_symlink():
            shutil.rmtree(folder)
        else:
            folder.unlink()


def _prepare_volume(name: str, volume: VolumeSource, places: Places) -> Readable:
    mount = places.volumes / name if places.volumes is not None else None
    return Readable(name, "volume", find_root(mount, volume.path, name))


def _prepare_git(source: Source, git: GitSource, cache: Path, places: Places) -> Readable:
    remote = read_url(git.url, places.file_root)
    mirror = _open_mirror(source, git, remote, cache, places)
    warning, reason = " ".join(_unsupported_options(git)), ""
    try:
        commit = mirror.sync(git.revision)
    except (SourceUnavailable, AuthenticationFailed) as error:
        last = mirror.last_commit()
        if last is None:
            raise
        # A server that is away must not take away data that is here.
        warning = f"It could not be fetched; commit {last[:12]} of the last scan is used. {error.message} {error.hint}"
        commit, reason = last, error.reason
    return Readable(source.name, "git", mirror.folder, commit, mirror.environment, warning, reason)


def _open_mirror(source: Source, git: GitSource, remote: Remote, cache: Path, places: Places) -> Mirror:
    folder = None
    if source.credentials_secret_ref is not None and places.credentials is not None:
        folder = places.credentials / source.name
    if source.credentials_secret_ref is not None and (folder is None or not folder.is_dir()):
        hint = "Make the Secret that credentialsSecretRef names in this namespace."
        raise AuthenticationFailed(f"The Secret of source {source.name!r} is not mounted.", hint)
    credentials = check_credentials(source.name, folder, ssh=remote.protocol == "ssh")
    protocols = {"file": ("file",), "ssh": ("ssh",), "https": ("https",), "http": ("http", "https")}[remote.protocol]
    home = places.scratch / "git" / source.name
    environment = build_environment(home, protocols, remote.host, credentials)
    return Mirror(cache / f"{_mirror_name(git.url)}.git", remote, environment)


def _mirror_name(url: str) -> str:
    """By URL, not by base name or source: two repositories never share a folder, one in two sources is fetched once."""
    return f"{_MIRROR_PREFIX}{hashlib.sha256(url.encode()).hexdigest()[:24]}"


def _unsupported_options(git: GitSource) -> Iterator[str]:
    if git.submodules:
        yield "Submodules are not fetched by this version; they are listed as rejected."
    if git.lfs:
        yield "Git LFS files are not fetched by this version; their pointers are listed as rejected."


def prepare_all(
    sources: list[Source], cache: Path, places: Places, announce: Callable[[str], None]
) -> tuple[list[Readable], dict[str, SourceError]]:
    """Prepare every source; one that fails does not stop the others.

    Args:
        sources: As in spec.
        cache: Folder in the store for what is fetched.
        places: The pod's folders.
        announce: Gets one sentence for each source as its turn comes.

    Returns:
        Those that can be read, in the order in which their files' full paths sort; and why the others can't.

    Raises:
        SourceError: None that is to be trained on can be used; the first one's trouble, and what ails the others.
    """
    ready: list[Readable] = []
    failed: dict[str, SourceError] = {}
    for number, source in enumerate(sources, start=1):
        announce(f"source {source.name} ({number} of {len(sources)})")
        try:
            ready.append(prepare(source, cache, places))
        except SourceError as error:
            failed[source.name] = error
    trained = {source.name for source in sources if source.use == "Train"}
    lacking = {name: error for name, error in failed.items() if name in trained or not ready}
    if lacking and not any(source.name in trained for source in ready):
        raise _sum_up(lacking)
    return sorted(ready, key=lambda source: f"{source.name}/"), failed


def _sum_up(failed: Mapping[str, SourceError]) -> SourceError:
    """One error for several: of the first one's kind, and naming each source."""
    first, *others = failed.items()
    if not others:
        return first[1]
    told = [f"Source {name!r}: {error.reason}: {error.message}" for name, error in (first, *others[: _TOLD - 1])]
    more = [f"Source {name!r}: {error.reason}." for name, error in others[_TOLD - 1 :]]
    message = f"None of the {len(failed)} sources to train on can be read. {' '.join([*told, *more])}"
    return type(first[1])(message, first[1].hint)
