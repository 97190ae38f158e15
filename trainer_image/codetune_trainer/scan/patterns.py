"""gitignore-style patterns, matched against a file's path inside its source."""

from collections.abc import Sequence

from pathspec import GitIgnoreSpec
from pathspec.patterns.gitignore import GitIgnorePatternError

from codetune_trainer.errors import InvalidParameters


class Patterns:
    """A list of gitignore-style patterns: the last one that matches decides, `!` takes back.

    Args:
        lines: The patterns.
        field: Their place in spec, for messages.

    Raises:
        InvalidParameters: A line is no pattern.
    """

    def __init__(self, lines: Sequence[str], field: str) -> None:
        self._lines = list(lines)
        for line in lines:
            try:
                GitIgnoreSpec.from_lines([line])
            except (GitIgnorePatternError, ValueError) as error:
                hint = "Patterns are written as in a .gitignore file, e.g. `vendor/`, `*.min.js`, `!keep.py`."
                raise InvalidParameters(f"{field} has {line!r}, which is no pattern: {error}.", hint) from error
        self._spec = GitIgnoreSpec.from_lines(self._lines)

    def __bool__(self) -> bool:
        return bool(self._lines)

    def find(self, path: str) -> str | None:
        """The pattern that decides that `path` belongs to the list; None when none does."""
        if not self._lines:
            return None
        found = self._spec.check_file(path)
        return self._lines[found.index] if found.include and found.index is not None else None
