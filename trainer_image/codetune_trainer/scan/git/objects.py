"""Reads a commit's files straight from the object database: no checkout, so no name or link ever reaches a disk."""

import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from codetune_trainer.errors import SourceUnavailable, UnsupportedSource
from codetune_trainer.scan.git.names import find_obstacle, show
from codetune_trainer.scan.git.reading import mark_damaged
from codetune_trainer.scan.git.running import Damaged, find_git, shorten
from codetune_trainer.scan.records import Found
from codetune_trainer.scan.rules.judge import READ_LIMIT_BYTES

MOST_ENTRIES = 1_000_000
"""Files of one repository. Trees may hold each other many times over, so that a small one lists without an end."""
MOST_LISTED_BYTES = 2**30
"""Length of all paths of one repository together."""
_TROUBLE_BYTES = 10_000
_LINK, _SUBMODULE = b"120000", b"160000"
_LEFT_OUT = f"more than {READ_LIMIT_BYTES} bytes; files of this size are not fetched"


@dataclass(frozen=True, slots=True)
class Entry:
    """A file, link or submodule in a tree."""

    mode: bytes
    identity: bytes
    """Name of the blob, or a submodule's commit."""
    size: int | None
    """Bytes; None of a submodule, and of a blob that is not here."""
    name: bytes
    """Path below the tree."""

    @property
    def is_submodule(self) -> bool:
        """Whether it is another repository's commit."""
        return self.mode == _SUBMODULE


def list_commit(git_dir: Path, treeish: str, environment: Mapping[str, str]) -> Iterator[Found]:
    """Every file of a commit or tree, in the order of their paths' bytes.

    Raises:
        Damaged: git could not read the tree to its end.
    """
    yield from map(describe, list_entries(git_dir, treeish, environment))


def list_entries(git_dir: Path, treeish: str, environment: Mapping[str, str]) -> Iterator[Entry]:
    """Every entry of a commit or tree, in the order of their paths' bytes.

    Args:
        git_dir: The bare repository.
        treeish: Name of the commit or tree.
        environment: git's; one without the network.

    Raises:
        Damaged: git could not read the tree to its end.
        UnsupportedSource: It has too many entries.
    """
    command = [find_git(), f"--git-dir={git_dir}", "ls-tree", "-r", "-z", "--long", "--full-tree", treeish]
    with (
        tempfile.TemporaryFile() as said,
        subprocess.Popen(
            command, env=dict(environment), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said
        ) as process,
    ):
        try:
            for number, entry in enumerate(_split(process)):
                if number >= MOST_ENTRIES:
                    raise _too_large(f"more than {MOST_ENTRIES} files")
                yield _read_entry(entry)
        except BaseException:
            process.kill()
            raise
        ended = process.wait()
        said.seek(0)
        trouble = shorten(said.read(_TROUBLE_BYTES).decode(errors="replace"))
    # A blob that was not fetched is silently without a size; one that can't be read is not.
    if ended or trouble:
        raise Damaged(f"git can't list {treeish} ({ended}): {trouble}")


def describe(entry: Entry) -> Found:
    """An entry as a scan knows files."""
    path, size = show(entry.name), entry.size or 0
    if obstacle := find_obstacle(entry.name):
        return Found(path, b"", size, obstacle)
    if entry.mode == _LINK:
        return Found(path, b"", size, "a symbolic link; links are not followed")
    if entry.is_submodule:
        return Found(path, b"", 0, f"a submodule at commit {entry.identity.decode()[:12]}")
    if entry.size is None:
        return Found(path, b"", 0, _LEFT_OUT)
    return Found(path, entry.identity, size)


def _split(process: subprocess.Popen[bytes]) -> Iterator[bytes]:
    assert process.stdout is not None
    rest, listed = b"", 0
    while chunk := process.stdout.read(1 << 20):
        listed += len(chunk)
        if listed > MOST_LISTED_BYTES:
            raise _too_large(f"paths of more than {MOST_LISTED_BYTES} bytes together")
        *entries, rest = (rest + chunk).split(b"\0")
        yield from entries


def _read_entry(entry: bytes) -> Entry:
    head, _, name = entry.partition(b"\t")
    mode, _, identity, size = head.split()
    return Entry(mode, identity, int(size) if size.isdigit() else None, name)


def _too_large(what: str) -> UnsupportedSource:
    hint = "Name the folder that matters in git.path, or split it into several sources."
    return UnsupportedSource(f"The repository has {what}.", hint)


class BlobReader:
    """One `git cat-file --batch` process that answers with file contents.

    Args:
        git_dir: The bare repository.
        environment: git's environment.
    """

    def __init__(self, git_dir: Path, environment: Mapping[str, str]) -> None:
        self._git_dir, self._environment = git_dir, environment
        command = [find_git(), f"--git-dir={git_dir}", "cat-file", "--batch"]
        self._process = subprocess.Popen(
            command, env=dict(environment), stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=1 << 16
        )

    def read(self, identities: Sequence[bytes]) -> Iterator[bytes]:
        """The contents in this order; ask for few hundred at a time, so that the question fits a pipe.

        Raises:
            SourceUnavailable: An object is missing or damaged; the next attempt fetches everything anew.
        """
        if not identities:
            return
        ask, answer = self._process.stdin, self._process.stdout
        assert ask is not None
        assert answer is not None
        ask.write(b"".join(identity + b"\n" for identity in identities))
        ask.flush()
        for identity in identities:
            head = answer.readline().split()
            if len(head) != 3 or head[1] != b"blob":
                raise self._find_damaged(identity)
            size = int(head[2])
            content = answer.read(size)
            if len(content) != size or answer.read(1) != b"\n":
                raise self._find_damaged(identity)
            yield content

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        self._process.wait()

    def _find_damaged(self, identity: bytes) -> SourceUnavailable:
        mark_damaged(self._git_dir, self._environment)
        message = f"What was fetched of a repository is damaged: git can't read its object {identity.decode()}."
        return SourceUnavailable(
            message, "Nothing is to be done: it is fetched anew when the scan starts again by itself."
        )
