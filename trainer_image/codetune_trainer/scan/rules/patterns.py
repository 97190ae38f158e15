"""gitignore-style patterns, matched against a file's path inside its source, or with the source's name before it.

Patterns are the Project's, but paths are whoever's who wrote the code: RE2 matches in linear time, while Python's own
regular expressions take for ever for `**/a/**/a/**/b` and a path made for it.
"""

import re
from collections.abc import Sequence

import re2
from pathspec.patterns.gitignore import GitIgnorePatternError
from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

from codetune_trainer.errors import InvalidParameters

_MOST_FOLDERS = 4096
"""Folders whose pattern is remembered."""
_MOST_MEMORY_BYTES = 64 * 2**20
_HINT = "Patterns are written as in a .gitignore file, e.g. `vendor/`, `*.min.js`, `!keep.py`."
_POSIX_HINT = "POSIX classes such as [[:alpha:]] are not known: write [a-zA-Z]."
_ANY_FOLDER = "(?P<ps_d>/)"
"""How pathspec writes `*/`."""
_WITH_SOURCE = re.compile(r"(!?)([a-z0-9-]+)/([^/].*)")
"""A pattern that may begin with a source's name: what takes back, the name, and the rest."""


class Patterns:
    """A list of gitignore-style patterns: the last one that matches decides, `!` takes back; as in git, not below a
    folder that is taken itself.

    Args:
        lines: The patterns.
        field: Their place in spec, for messages.
        source: Name of the source whose files are asked for. A pattern that begins with it is also about what follows,
            seen from the top of the source: reports show paths that way.

    Raises:
        InvalidParameters: A line is no pattern.
    """

    def __init__(self, lines: Sequence[str], field: str, source: str = "") -> None:
        self._lines = list(lines)
        self._field = field
        self._taking: list[tuple[str, bool]] = []
        """Of each regular expression: its pattern, and whether it takes or takes back."""
        self._folders: dict[str, str | None] = {}
        options = re2.Options()
        options.dot_nl, options.log_errors, options.max_mem = True, False, _MOST_MEMORY_BYTES
        self._set = re2.Set.FullMatchSet(options)
        for line in lines:
            self._add(line, line)
            named = _WITH_SOURCE.fullmatch(line)
            if named and named[2] == source:
                self._add(f"{named[1]}/{named[3]}", line)
        if self._taking:
            self._set.Compile()

    def __bool__(self) -> bool:
        return bool(self._lines)

    def of_source(self, name: str) -> "Patterns":
        """These for the files of a source: themselves when none begins with its name."""
        named = any(match[2] == name for match in map(_WITH_SOURCE.fullmatch, self._lines) if match)
        return Patterns(self._lines, self._field, name) if named else self

    def find(self, path: str) -> str | None:
        """The pattern that decides that `path` belongs to the list; None when none does."""
        if not self._taking:
            return None
        return self._find_folder(path[: path.rfind("/") + 1]) or self._find(path)

    def _add(self, pattern: str, line: str) -> None:
        """Take up a pattern that is told as `line`."""
        if "\n" in line:
            raise InvalidParameters(
                f"{self._field} has {line!r}, which has a line break.", "Write one pattern an entry."
            )
        try:
            regex, takes = GitIgnoreSpecPattern.pattern_to_regex(pattern)
            if regex is not None and takes is not None:  # no comment
                self._set.Add(_match_alone(regex))
                self._taking.append((line, takes))
        except (GitIgnorePatternError, re2.error) as error:
            # Both libraries quote the expression that a pattern becomes, and nobody has written that.
            hint = _POSIX_HINT if "[:" in line else _HINT
            raise InvalidParameters(f"{self._field} has {line!r}, which is no pattern.", hint) from error

    def _find_folder(self, folder: str) -> str | None:
        """The pattern that takes a folder, and with it everything below: what is taken back there stays taken."""
        if folder not in self._folders:
            if len(self._folders) >= _MOST_FOLDERS:
                self._folders.clear()
            ends = (index + 1 for index, letter in enumerate(folder) if letter == "/")
            self._folders[folder] = next(filter(None, (self._find(folder[:end]) for end in ends)), None)
        return self._folders[folder]

    def _find(self, path: str) -> str | None:
        """The pattern that takes just this file, or this folder when the path ends in `/`."""
        matching = self._set.Match(path)
        line, takes = self._taking[max(matching)] if matching else ("", False)
        return line if takes else None


def _match_alone(regex: str) -> str:
    """An expression of pathspec's for a file or folder itself; as pathspec has it, it finds all that is below too."""
    if regex in {".", _ANY_FOLDER}:
        return ".*" if regex == "." else ".*/"
    if regex.endswith("/"):
        return f"{regex}.+"  # `a/**`
    return regex.replace("[^", "[^/")  # no class takes a slash
