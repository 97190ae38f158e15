"""Container paths → host folders. Pure.

Processes here share the host's file system: what a container would see at a mount path lies somewhere else. So every
mention of a mount path in command, arguments and environment values is replaced by the host folder.
"""

import re
from collections.abc import Mapping


class PathRewriter:
    """Replaces container paths, longest first and only at the boundaries of path components."""

    def __init__(self, folders: Mapping[str, str]) -> None:
        """Take the container path → host path pairs."""
        self._folders = {path.rstrip("/") or "/": host for path, host in folders.items()}
        paths = sorted((path for path in self._folders if path != "/"), key=len, reverse=True)
        # Before it: nothing that would make it the tail of a longer path, but `file://` may stand there.
        # After it: the end, a slash, or anything that cannot go on a file name.
        pattern = "|".join(re.escape(path) for path in paths)
        self._pattern = re.compile(rf"(?:(?<=://)|(?<![\w.\-/]))(?:{pattern})(?![\w.\-])") if paths else None

    def rewrite(self, text: str) -> str:
        """The text with host paths; what was put in is not looked at again."""
        if self._pattern is None:
            return text
        return self._pattern.sub(lambda match: self._folders[match.group()], text)
