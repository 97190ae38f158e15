"""gitignore-style patterns, matched against a file's path inside its source.

Patterns are the Project's, but paths are whoever's who wrote the code: RE2 matches in linear time, while Python's own
regular expressions take for ever for `**/a/**/a/**/b` and a path made for it.
"""

import warnings
from collections.abc import Sequence

import re2
from pathspec import GitIgnoreSpec
from pathspec.patterns.gitignore import GitIgnorePatternError

from codetune_trainer.errors import InvalidParameters

_MOST_FOLDERS = 4096
"""Folders whose pattern is remembered."""
_HINT = "Patterns are written as in a .gitignore file, e.g. `vendor/`, `*.min.js`, `!keep.py`."


class Patterns:
    """A list of gitignore-style patterns: the last one that matches decides, `!` takes back; as in git, not below a
    folder that is taken itself.

    Args:
        lines: The patterns.
        field: Their place in spec, for messages.

    Raises:
        InvalidParameters: A line is no pattern.
    """

    def __init__(self, lines: Sequence[str], field: str) -> None:
        self._lines = list(lines)
        for line in lines:
            if "\n" in line:
                raise InvalidParameters(f"{field} has {line!r}, which has a line break.", "Write one pattern an entry.")
            try:
                _compile([line])
            except (GitIgnorePatternError, ValueError, re2.error) as error:
                raise InvalidParameters(f"{field} has {line!r}, which is no pattern: {error}.", _HINT) from error
        self._spec = _compile(self._lines)
        self._folders: dict[str, str | None] = {}

    def __bool__(self) -> bool:
        return bool(self._lines)

    def find(self, path: str) -> str | None:
        """The pattern that decides that `path` belongs to the list; None when none does."""
        if not self._lines:
            return None
        # No wildcard of a regular expression takes a line break, so a folder's name that has one would hide what is
        # below it. No path has a NUL.
        path = path.replace("\n", "\0")
        return self._find_folder(path[: path.rfind("/") + 1]) or self._find(path)

    def _find_folder(self, folder: str) -> str | None:
        """The pattern that takes a folder, and with it everything below: what is taken back there stays taken."""
        if folder not in self._folders:
            if len(self._folders) >= _MOST_FOLDERS:
                self._folders.clear()
            ends = (index + 1 for index, letter in enumerate(folder) if letter == "/")
            self._folders[folder] = next(filter(None, (self._find(folder[:end]) for end in ends)), None)
        return self._folders[folder]

    def _find(self, path: str) -> str | None:
        found = self._spec.check_file(path)
        return self._lines[found.index] if found.include and found.index is not None else None


def _compile(lines: Sequence[str]) -> GitIgnoreSpec:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of Python's own regular expressions about `[[a]`
        return GitIgnoreSpec.from_lines(lines, backend="re2")
