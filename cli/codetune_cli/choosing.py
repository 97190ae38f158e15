"""Which local files an upload takes: what git would, in repositories and outside of them. Follows no link."""

import os
import stat
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pathspec import GitIgnoreSpec

from codetune_cli.errors import CliError

LINK = "symbolic links"
SPECIAL = "devices, pipes and sockets"
NAME = "files whose names are not UTF-8"
UNREADABLE = "files that can't be read"
SUBMODULE = "submodules that are not checked out"
_GIT = ".git"
_IGNORE = ".gitignore"

Specs = tuple[tuple[str, GitIgnoreSpec], ...]
"""Folders with a .gitignore and what it says, from the root down; a folder is "" or ends in a slash."""


@dataclass
class Choice:
    """The files of an upload."""

    files: dict[str, Path] = field(default_factory=dict)
    """Path in the upload → local file."""
    left_out: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """Why → which; what .gitignore names is not here."""


def choose_files(paths: Sequence[Path]) -> Choice:
    """The files below these paths: a single folder gives its content, several paths keep their last names.

    Raises:
        CliError: A path is not there, two have the same name, or nothing is left.
    """
    choice = Choice()
    names = [path.resolve().name for path in paths]
    for path, name in zip(paths, names, strict=True):
        if not path.exists():
            raise CliError(f"There is no file or folder {str(path)!r}.")
        if names.count(name) > 1:
            same = ", ".join(str(other) for other, own in zip(paths, names, strict=True) if own == name)
            raise CliError(f"{same} have the same last name {name!r}: upload them to sources of their own.")
        if path.is_dir():
            prefix = f"{name}/" if len(paths) > 1 else ""
            for below in list_folder(path, choice.left_out):
                _add(choice, prefix + below, path / below)
        else:
            _add(choice, name, path)
    if not choice.files:
        told = ", ".join(str(path) for path in paths)
        raise CliError(f"There is no file to send in {told}: all that is there is ignored by git, or no plain file.")
    return choice


def list_folder(folder: Path, left_out: defaultdict[str, list[str]]) -> Iterator[str]:
    """Paths below a folder that git would not ignore; `left_out` gets the submodules that are not there."""
    listed = _ask_git(folder)
    if listed is None:
        yield from _walk(folder, "", (), left_out)
        return
    for path in listed:
        whole = folder / path
        if whole.is_dir() and not whole.is_symlink():
            # A submodule, or a repository inside of this one.
            below = path.rstrip("/")
            if (whole / _GIT).exists():
                yield from (f"{below}/{found}" for found in list_folder(whole, left_out))
            else:
                left_out[SUBMODULE].append(below)
        elif os.path.lexists(whole):  # git also names what was deleted and not committed
            yield path


def _ask_git(folder: Path) -> list[str] | None:
    """What git lists in a folder, as if it were a repository where it is none; None where there is no git."""
    try:
        listed = _run_git(["-C", str(folder), *_LIST])
        if listed is None:
            with tempfile.TemporaryDirectory(prefix="codetune-git-") as empty:
                _run_git(["init", "--quiet", "--bare", empty])
                listed = _run_git(["-C", str(folder), f"--git-dir={empty}", "--work-tree=.", *_LIST])
    except FileNotFoundError:
        return None
    return sorted({os.fsdecode(path) for path in (listed or b"").split(b"\0") if path})


# A folder's own configuration must not run programs: neither a monitor of files nor, for an object that is missing,
# what would fetch it from where that configuration says. Listing needs no object from elsewhere.
_NO_FETCHING = {"GIT_NO_LAZY_FETCH": "1", "GIT_ALLOW_PROTOCOL": "none"}
_LIST = ["-c", "core.fsmonitor=false", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]


def _run_git(arguments: Sequence[str]) -> bytes | None:
    """git's output; None outside of repositories. Raises: FileNotFoundError, CliError."""
    # Variables of a hook that this runs in must not mislead.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    environment |= {"LC_ALL": "C", **_NO_FETCHING}
    done = subprocess.run(
        ["git", *arguments], env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()
        if "not a git repository" in said:
            return None
        raise CliError(f"git can't list the files: {said}")
    return done.stdout


def _walk(folder: Path, prefix: str, specs: Specs, left_out: defaultdict[str, list[str]]) -> Iterator[str]:
    """The same without git, but for rules that ignore all and take folders back (`*` and then `!*/`)."""
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        left_out[UNREADABLE].append(f"{prefix} ({error.strerror})")
        return
    if any(entry.name == _IGNORE and entry.is_file() for entry in entries):
        text = (folder / _IGNORE).read_text(encoding="utf-8", errors="replace")
        specs = (*specs, (prefix, GitIgnoreSpec.from_lines(text.splitlines())))
    for entry in entries:
        path = f"{prefix}{entry.name}"
        is_folder = entry.is_dir(follow_symlinks=False)
        if entry.name == _GIT or _is_ignored(f"{path}/" if is_folder else path, specs):
            continue
        if not is_folder:
            yield path
        elif (folder / entry.name / _GIT).exists():
            yield from (f"{path}/{below}" for below in list_folder(folder / entry.name, left_out))
        else:
            yield from _walk(folder / entry.name, f"{path}/", specs, left_out)


def _is_ignored(path: str, specs: Specs) -> bool:
    """The nearest .gitignore that says anything about a path decides; inside of one, the last line that matches."""
    for base, spec in reversed(specs):
        include = spec.check_file(path.removeprefix(base)).include
        if include is not None:
            return include
    return False


def _add(choice: Choice, path: str, file: Path) -> None:
    try:
        path.encode()
    except UnicodeEncodeError:
        choice.left_out[NAME].append(os.fsencode(path).decode(errors="backslashreplace"))
        return
    mode = file.lstat().st_mode
    if stat.S_ISREG(mode):
        choice.files[path] = file
    else:
        choice.left_out[LINK if stat.S_ISLNK(mode) else SPECIAL].append(path)
