"""Path patterns as people know them from .gitignore, matched in time that no pattern can blow up. Pure.

Without a slash a pattern is about the last part of a path, with one about the whole of it; `*` and `?` stay inside a
part, `**` stands for any number of parts, and a pattern that names a folder takes all that is in it.
"""

from collections.abc import Sequence
from fnmatch import fnmatchcase

MAX_PATTERN_CHARACTERS = 1024
_MAX_PARTS = 64


class PathPattern:
    """One pattern.

    Args:
        text: As a person wrote it.

    Raises:
        ValueError: It is empty or too long.
    """

    def __init__(self, text: str) -> None:
        cleaned = text.strip("/")
        if not cleaned or len(text) > MAX_PATTERN_CHARACTERS:
            raise ValueError(
                f"{text[:80]!r} is no pattern: give 1 to {MAX_PATTERN_CHARACTERS} characters, e.g. `src/**`"
            )
        self._parts = cleaned.split("/")
        if len(self._parts) > _MAX_PARTS:
            raise ValueError(f"{text[:80]!r} has more than {_MAX_PARTS} parts")
        self._anchored = "/" in text.rstrip("/")

    def matches(self, path: str) -> bool:
        """Whether a path, or a folder that it lies in, has this form."""
        parts = path.split("/")
        if not self._anchored:
            return any(fnmatchcase(part, self._parts[0]) for part in parts)
        return _match(self._parts, parts)


def _match(pattern: Sequence[str], parts: Sequence[str]) -> bool:
    """Row by row: which numbers of parts the first patterns can stand for. A beginning of the path is enough."""
    reachable = {0}
    for index, piece in enumerate(pattern):
        if not reachable:
            return False
        if piece == "**":
            # At the end it takes at least one part: `src/**` is what is in src.
            first = min(reachable) + (index == len(pattern) - 1)
            reachable = set(range(first, len(parts) + 1))
        else:
            reachable = {at + 1 for at in reachable if at < len(parts) and fnmatchcase(parts[at], piece)}
    return bool(reachable)
