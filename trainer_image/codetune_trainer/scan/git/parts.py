"""Which blobs of a commit are needed for a folder of it, and which of them a mirror does not have."""

from collections.abc import Iterable, Sequence

from codetune_trainer.errors import PathNotFound
from codetune_trainer.scan.git.objects import list_entries
from codetune_trainer.scan.git.reading import Repository

MODULES_FILE = ".gitmodules"


def find_folder(repository: Repository, commit: str, path: str, shown: str) -> str:
    """Name of the tree at a path.

    Args:
        repository: Where the commit is.
        commit: Its name.
        path: Folder in it, without leading and double `/`.
        shown: The repository's URL, for messages.

    Raises:
        PathNotFound: The commit has no such folder.
    """
    parts = path.split("/")
    for depth in range(1, len(parts) + 1):
        ancestor = "/".join(parts[:depth])
        listed = repository.run("ls-tree", "-z", "--full-tree", commit, "--", ancestor).partition("\0")[0]
        kind, identity = listed.partition("\t")[0].split()[1:] if listed else ("", "")
        if kind == "commit":
            hint = "Make the submodule's repository a source of its own."
            raise PathNotFound(f"git.path {path!r} leads into the submodule {ancestor!r} of {shown}.", hint)
        if kind != "tree":
            what = "is a file" if kind else "does not exist"
            message = f"{shown} has no folder {path!r} in commit {commit[:12]}: {ancestor!r} {what}."
            raise PathNotFound(message, "Set git.path to a folder of the revision, or leave it out for all of it.")
    return identity


def find_lacking(repository: Repository, commit: str, tree: str, held: Sequence[str]) -> set[bytes]:
    """The blobs that are needed of a commit and are not here, but for those that were left out on purpose.

    Args:
        repository: Where they should be.
        commit: Whose list of submodules is needed.
        tree: Of the folder whose blobs are needed.
        held: Trees of this folder that are here as far as they are wanted: what is not here of them is too large.
    """
    lacking = find_absent(repository, _list_blobs(repository, tree)) | find_absent_modules(repository, commit)
    for other in held:
        if lacking:
            lacking -= find_absent(repository, _list_blobs(repository, other))
    return lacking


def find_moved(repository: Repository, blobs: set[bytes], commits: Sequence[str]) -> set[bytes]:
    """Those of the blobs that lay anywhere in the commits."""
    return {blob for commit in commits for blob in blobs & _list_blobs(repository, commit)}


def find_absent_modules(repository: Repository, commit: str) -> set[bytes]:
    """The blob that lists a commit's submodules, when it is not here."""
    listed = repository.run("ls-tree", "--full-tree", commit, "--", MODULES_FILE).split()
    return find_absent(repository, {listed[2].encode()}) if listed and listed[1] == "blob" else set()


def _list_blobs(repository: Repository, tree: str) -> set[bytes]:
    entries = list_entries(repository.folder, tree, repository.reading)
    return {entry.identity for entry in entries if not entry.is_submodule}


def find_absent(repository: Repository, blobs: Iterable[bytes]) -> set[bytes]:
    """Those that are not here."""
    asked = b"".join(blob + b"\n" for blob in sorted(blobs))
    answers = repository.run("cat-file", "--batch-check=%(objectname)", data=asked).splitlines() if asked else []
    return {answer.split()[0].encode() for answer in answers if answer.endswith(" missing")}
