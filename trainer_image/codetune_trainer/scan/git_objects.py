"""Reads a commit's files straight from the object database: no checkout, so no name or link ever reaches a disk."""

import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from codetune_trainer.scan.git_environment import find_git
from codetune_trainer.scan.paths import spell_path
from codetune_trainer.scan.records import Found

_LINK, _SUBMODULE = b"120000", b"160000"
_UNSAFE_PARTS = frozenset({b"", b".", b"..", b".git"})
"""git itself checks no such name out; here it could mislead whoever later writes files by these paths."""


def list_commit(git_dir: Path, commit: str, environment: Mapping[str, str]) -> Iterator[Found]:
    """Every entry of a commit's tree, in the order of their paths' bytes.

    Raises:
        RuntimeError: git could not read the tree to its end.
    """
    command = [find_git(), f"--git-dir={git_dir}", "ls-tree", "-r", "-z", "--long", "--full-tree", commit]
    with subprocess.Popen(command, env=dict(environment), stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as process:
        try:
            yield from map(_read_entry, _split(process))
        except BaseException:
            process.kill()
            raise
        ended = process.wait()
    if ended:
        raise RuntimeError(f"git can't list commit {commit} in {git_dir}: it ended with {ended}")


def _split(process: subprocess.Popen[bytes]) -> Iterator[bytes]:
    assert process.stdout is not None
    rest = b""
    while chunk := process.stdout.read(1 << 20):
        *entries, rest = (rest + chunk).split(b"\0")
        yield from entries


def _read_entry(entry: bytes) -> Found:
    head, _, name = entry.partition(b"\t")
    mode, _, identity, size = head.split()
    path = spell_path(name)
    if mode == _LINK:
        return Found(path, b"", int(size), "a symbolic link; links are not followed")
    if mode == _SUBMODULE:
        return Found(path, b"", 0, f"a submodule at commit {identity.decode()[:12]}")
    if not _UNSAFE_PARTS.isdisjoint(name.lower().split(b"/")):
        return Found(path, b"", int(size), "a path that no work tree may have")
    return Found(path, identity, int(size))


class BlobReader:
    """One `git cat-file --batch` process that answers with file contents.

    Args:
        git_dir: The bare repository.
        environment: git's environment.
    """

    def __init__(self, git_dir: Path, environment: Mapping[str, str]) -> None:
        command = [find_git(), f"--git-dir={git_dir}", "cat-file", "--batch"]
        self._process = subprocess.Popen(
            command, env=dict(environment), stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=1 << 16
        )

    def read(self, identities: Sequence[bytes]) -> Iterator[bytes]:
        """The contents in this order; ask for few hundred at a time, so that the question fits a pipe.

        Raises:
            RuntimeError: An object is missing or damaged.
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
                raise RuntimeError(f"git can't read object {identity.decode()}: {b' '.join(head).decode()}")
            size = int(head[2])
            content = answer.read(size)
            if len(content) != size or answer.read(1) != b"\n":
                raise RuntimeError(f"git ended while giving object {identity.decode()}")
            yield content

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        self._process.wait()
