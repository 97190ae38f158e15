"""A bare repository that is only read: git gets no credentials and no transport, so nothing it reads starts a fetch."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from codetune_trainer.scan.git.running import FETCH_SECONDS, GitError, run_git

_OTHERS = "GIT_ALTERNATE_OBJECT_DIRECTORIES"


@dataclass(frozen=True)
class Repository:
    """A bare repository in the store."""

    folder: Path
    reading: Mapping[str, str]
    """git's environment; from `close_off`."""

    def run(self, *arguments: str, data: bytes = b"") -> str:
        """git's output. Raises: GitError, SourceUnavailable when it takes too long."""
        return run_git([f"--git-dir={self.folder}", *arguments], self.reading, FETCH_SECONDS, data)

    def resolve(self, name: str) -> str | None:
        """The commit that a name stands for; None when there is none."""
        try:
            return self.run("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}").strip() or None
        except GitError:
            return None


def close_off(environment: Mapping[str, str], *folders: Path) -> Mapping[str, str]:
    """The environment for reading.

    Args:
        environment: That for fetching.
        folders: Other bare repositories whose objects are there too.
    """
    others = ":".join(_quote(str(folder / "objects")) for folder in folders)
    kept = {name: value for name, value in environment.items() if not name.startswith("CODETUNE_")}
    return {
        **kept,
        "GIT_ALLOW_PROTOCOL": "none",
        "GIT_SSH_COMMAND": "false",
        **({_OTHERS: others} if others else {}),
    }


def mark_damaged(folder: Path, reading: Mapping[str, str]) -> None:
    """Let the next sync make a repository anew, and the others whose objects it has.

    Args:
        folder: The bare repository.
        reading: The environment that it was read in; from `close_off`.
    """
    quoted = re.findall(r'"((?:[^"\\]|\\.)*)"', reading.get(_OTHERS, ""))
    others = [Path(re.sub(r"\\(.)", r"\1", path)).parent for path in quoted]
    for each in (folder, *others):
        (each / "HEAD").unlink(missing_ok=True)


def _quote(path: str) -> str:
    """A path of a list in which `:` stands between paths."""
    escaped = path.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
