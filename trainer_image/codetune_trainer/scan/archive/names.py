"""Which names of an archive's entries are taken as paths, and what is wrong with the others. Pure.

No entry's name ever becomes a name on a disk (pack.py), so these rules protect whoever later writes files by
the paths of a dataset, and keep one file from having two names.
"""

import hashlib
import re
from dataclasses import dataclass

from codetune_trainer.scan.paths import spell_path

_SHOWN_CHARACTERS = 200
_DRIVE = re.compile(rb"[A-Za-z]:")
_BETWEEN = re.compile(rb"[/\\]")
_GIT_FOLDER = b".git"
_MAC_FOLDER = b"__MACOSX"
_GIT_OBSTACLE = "git's own folder; it is not looked into"
_MAC_OBSTACLE = "what macOS keeps about files, added by its archiver; it is not looked into"


@dataclass(frozen=True, slots=True)
class EntryName:
    """An entry's name, read as a path."""

    path: str
    """Path inside the archive, without `.` and empty parts; of a name that is refused, the name itself, printable."""
    obstacle: str = ""
    """Why the name is refused."""
    folder: bool = False
    """Whether the name alone says that it is a folder."""
    aside: bool = False
    """Whether it stands beside the archive's own folders: a refused name, or what the archiver added."""


def read_name(raw: bytes, limit: int) -> EntryName:
    """What an entry's name means.

    Args:
        raw: The name as it stands in the archive, with `/` between its parts.
        limit: Bytes that a name may have.
    """
    if obstacle := _find_obstacle(raw, limit):
        return EntryName(_show(raw), obstacle, aside=True)
    parts = [part for part in raw.split(b"/") if part not in {b"", b"."}]
    folder = raw.endswith((b"/", b"/.")) or not parts
    if parts and parts[0] == _MAC_FOLDER and (folder or len(parts) > 1):
        return EntryName(spell_path(_MAC_FOLDER) + "/", _MAC_OBSTACLE, aside=True)
    inside = parts if folder else parts[:-1]
    for index, part in enumerate(inside):
        if part.lower() == _GIT_FOLDER:
            return EntryName(spell_path(b"/".join(parts[: index + 1])) + "/", _GIT_OBSTACLE)
    return EntryName(spell_path(b"/".join(parts)), folder=folder)


def _find_obstacle(raw: bytes, limit: int) -> str:
    if not raw:
        return "an entry without a name"
    if len(raw) > limit:
        return f"a name of {len(raw)} bytes, more than {limit}"
    if b"\0" in raw:
        return "a name with a NUL byte"
    parts = raw.split(b"/")
    # Of every part, not of the first alone: a folder around everything is left out of the paths later.
    if raw.startswith(b"/") or any(part.startswith(b"\\") for part in parts):
        return "an absolute path; it leads outside the archive"
    if any(_DRIVE.match(part) for part in parts):
        return "a path with a drive letter; it leads outside the archive"
    if b".." in _BETWEEN.split(raw):
        return "a path with `..`; it leads outside the archive"
    return ""


def _show(raw: bytes) -> str:
    text = spell_path(raw).replace("\0", "\\x00")
    if len(text) <= _SHOWN_CHARACTERS:
        return text
    return f"{text[:_SHOWN_CHARACTERS]}… ({hashlib.sha256(raw).hexdigest()[:12]})"
