"""The files of a git source as one list: those of its commit, of its submodules, and what Git LFS keeps elsewhere."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from heapq import merge
from pathlib import Path

from codetune_trainer.scan.git.objects import list_commit
from codetune_trainer.scan.records import Found


@dataclass(frozen=True)
class StandIn:
    """What counts in place of a Git LFS pointer."""

    size: int
    """Bytes of the file itself."""
    key: bytes = b""
    """The blob with its content."""
    obstacle: str = ""
    """Why it can't be had, though it is wanted."""


@dataclass(frozen=True)
class GitTree:
    """A commit's tree; a plain value, so that it can be sent to other processes."""

    treeish: str
    """Of the commit, or of a folder of it."""
    modules: Mapping[str, "GitTree"] = field(default_factory=dict)
    """Submodules that were fetched, by their paths."""
    troubles: Mapping[str, str] = field(default_factory=dict)
    """Why submodules were not fetched, by their paths."""
    pointers: Mapping[bytes, StandIn] = field(default_factory=dict)
    """What stands in for Git LFS pointers, by their blobs."""


def list_tree(git_dir: Path, tree: GitTree, environment: Mapping[str, str]) -> Iterator[Found]:
    """Every file, in the order of their paths' bytes.

    Args:
        git_dir: A bare repository that has all the objects.
        tree: What to list.
        environment: git's; one without the network.
    """
    own = (_settle(found, tree) for found in list_commit(git_dir, tree.treeish, environment))
    if not tree.modules:
        return own
    left = (found for found in own if found.path not in tree.modules)
    # A submodule sorts as a file does, and its files as those of a folder.
    return merge(left, _list_modules(git_dir, tree, environment), key=lambda found: found.path.encode())


def _list_modules(git_dir: Path, tree: GitTree, environment: Mapping[str, str]) -> Iterator[Found]:
    for path in sorted(tree.modules, key=lambda path: f"{path}/".encode()):
        for found in list_tree(git_dir, tree.modules[path], environment):
            yield found._replace(path=f"{path}/{found.path}")


def _settle(found: Found, tree: GitTree) -> Found:
    if found.path in tree.troubles:
        return found._replace(obstacle=f"{found.obstacle}, not fetched: {tree.troubles[found.path]}")
    if found.key in tree.pointers:
        stand_in = tree.pointers[found.key]
        return found._replace(key=stand_in.key, size=stand_in.size, obstacle=stand_in.obstacle)
    return found
