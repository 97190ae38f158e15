"""Makes each source of a Project ready to be read, whatever it is, and says what is wrong with those that are not."""

import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from codetune_api.project import Source, VolumeSource
from codetune_bucket.errors import BucketError

from codetune_trainer.config import Places
from codetune_trainer.errors import DiskFull, SourceError, SourceUnavailable, TrainerError, UnsupportedSource, translate
from codetune_trainer.scan.archive.fetching import fetch_archive
from codetune_trainer.scan.archive.pack import list_pack
from codetune_trainer.scan.archive.shelf import prune_archives
from codetune_trainer.scan.git.cache import prune_mirrors
from codetune_trainer.scan.git.fetching import fetch_git
from codetune_trainer.scan.git.tree import GitTree, list_tree
from codetune_trainer.scan.records import Found
from codetune_trainer.scan.sources.upload_tree import UploadPlace, find_version, list_version
from codetune_trainer.scan.sources.volumes import find_root, list_folder, walk_folder

_TOLD = 3
"""Sources whose trouble is told in full when none can be used."""
_MESSAGE_CHARACTERS = 600
"""Of what a library says."""


@dataclass(frozen=True)
class Readable:
    """A source whose files can be listed and read; a plain value, so that it can be sent to other processes."""

    name: str
    kind: str
    """`git`, `archive`, `upload` or `volume`."""
    root: Path
    """A bare repository, the pack of the archive, the upload's folder in the store, or the folder on the volume."""
    commit: str = ""
    """git's commit, or the upload's version."""
    environment: Mapping[str, str] | None = None
    """git's."""
    tree: GitTree | None = None
    """What a git source has."""
    warning: str = ""
    """What a person should know about it though it could be read."""
    reason: str = ""
    """Why what is read is not all that the source has now; empty when it is, or when no attempt would change that."""
    digest: str | None = None
    """`sha256:…` of the archive."""

    def list(self, named: Callable[[str], bool] | None = None) -> Iterator[Found]:
        """The files in the order of their paths' bytes: all of them, or those with such a name."""
        if named is not None and self.kind != "volume":
            return (found for found in self.list() if named(found.name))
        if self.tree is not None:
            return list_tree(self.root, self.tree, self.environment or {})
        if self.kind == "archive":
            return list_pack(self.root)
        if self.kind == "upload":
            return list_version(self.root, self.commit)
        return list_folder(self.root, named)

    def walk(self) -> Iterator[Found | bytes]:
        """As `list`; of what takes a look at it, which is some work, no more than its path."""
        return walk_folder(self.root) if self.kind == "volume" else self.list()


def prepare(
    source: Source, cache: Path, places: Places, wants: Callable[[str, Found], bool], known: str = ""
) -> Readable:
    """Fetch a source, or find it where it is mounted.

    Args:
        source: As in spec.
        cache: Folder in the store for what is fetched.
        places: The pod's folders.
        wants: Whether a file of this path and size would be read, where it is in the source of that name.
        known: Commit or digest of the last scan, when nothing newer is asked for.

    Raises:
        SourceError: It can't be used.
    """
    if source.git is not None:
        read = fetch_git(source, source.git, cache, places, partial(wants, source.name), known)
        return Readable(
            source.name, "git", read.folder, read.commit, read.environment, read.tree, read.warning, read.reason
        )
    if source.archive is not None:
        got = fetch_archive(source, source.archive, cache, places, known=known)
        return Readable(source.name, "archive", got.pack, warning=got.warning, reason=got.reason, digest=got.digest)
    if source.volume is not None:
        return _prepare_volume(source.name, source.volume, places)
    if source.upload is not None:
        place = UploadPlace.beside(cache, source.name)
        return Readable(source.name, "upload", place.folder.resolve(), find_version(place))
    hint = "Give it one of git, archive, upload and volume."
    raise UnsupportedSource(f"Source {source.name!r} is of no kind that this version knows.", hint)


def prune_cache(sources: list[Source], cache: Path) -> None:
    """Remove what was fetched for sources that the Project no longer has."""
    prune_mirrors(sources, cache)
    prune_archives(sources, cache)


def _prepare_volume(name: str, volume: VolumeSource, places: Places) -> Readable:
    mount = places.volumes / name if places.volumes is not None else None
    return Readable(name, "volume", find_root(mount, volume.path, name))


def prepare_all(
    sources: list[Source],
    cache: Path,
    places: Places,
    announce: Callable[[str], None],
    wants: Callable[[str, Found], bool],
    known: Mapping[str, str],
) -> tuple[list[Readable], dict[str, SourceError]]:
    """Prepare every source; one to train on that fails does not stop the others.

    Args:
        sources: As in spec.
        cache: Folder in the store for what is fetched.
        places: The pod's folders.
        announce: Gets one sentence for each source as its turn comes.
        wants: Whether a file of this path and size would be read, where it is in the source of that name.
        known: Of sources that need not be fetched again: commit or digest of the last scan.

    Returns:
        Those that can be read, in the order in which their files' full paths sort; and why the others can't.

    Raises:
        SourceError: None that is to be trained on can be used, or one that is to be held out can't: the first one's
            trouble, and what ails the others.
        DiskFull: The store has no room.
    """
    ready: list[Readable] = []
    failed: dict[str, SourceError] = {}
    for number, source in enumerate(sources, start=1):
        announce(f"source {source.name} ({number} of {len(sources)})")
        try:
            ready.append(_attempt(source, cache, places, wants, known.get(source.name, "")))
        except SourceError as error:
            failed[source.name] = error
    trained = {source.name for source in sources if source.use == "Train"}
    lacking = {name: error for name, error in failed.items() if name in trained or not ready}
    if lacking and not any(source.name in trained for source in ready):
        raise _sum_up(lacking, f"None of the {len(lacking)} sources to train on can be read.")
    if held_out := {name: error for name, error in failed.items() if name not in trained}:
        raise _refuse_to_train_on(held_out)
    return sorted(ready, key=lambda source: f"{source.name}/"), failed


def _attempt(source: Source, cache: Path, places: Places, wants: Callable[[str, Found], bool], known: str) -> Readable:
    """As `prepare`; what nobody thought of is a fault of the source alone, but for what ails the whole pod."""
    try:
        return prepare(source, cache, places, wants, known)
    except (TrainerError, BucketError, MemoryError):
        raise
    except Exception as error:
        if isinstance(translate(error), DiskFull):
            raise
        traceback.print_exception(error, file=sys.stderr)
        message = f"Source {source.name!r} can't be read: {type(error).__name__}: {error}"
        hint = "This is a fault of Codetune: please report it with the log of the scan's pod."
        raise SourceUnavailable(message[:_MESSAGE_CHARACTERS], hint) from error


def _refuse_to_train_on(held_out: Mapping[str, SourceError]) -> SourceError:
    """Sources with `use: HoldOut` that can't be read: nobody knows what must not be trained on."""
    ((name, first), *others) = held_out.items()
    if others:
        said = _sum_up(held_out, f"{len(held_out)} sources can't be read.").message
        why = "They are for evaluation only (use: HoldOut), and what they hold could be trained on without them"
        cure = "Mend them, or take them out of spec.sources."
    else:
        said = f"Source {name!r}: {first.message}"
        why = "It is for evaluation only (use: HoldOut), and what it holds could be trained on without it"
        cure = "Mend it, or take it out of spec.sources."
    return type(first)(f"{said} {why}, from other sources.", f"{first.hint} {cure}".strip())


def _sum_up(failed: Mapping[str, SourceError], heading: str) -> SourceError:
    """One error for several: of the first one's kind, and naming each source."""
    first, *others = failed.items()
    if not others:
        return first[1]
    told = [f"Source {name!r}: {error.reason}: {error.message}" for name, error in (first, *others[: _TOLD - 1])]
    more = [f"Source {name!r}: {error.reason}." for name, error in others[_TOLD - 1 :]]
    return type(first[1])(f"{heading} {' '.join([*told, *more])}", first[1].hint)
