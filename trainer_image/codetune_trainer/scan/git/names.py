"""Which names in a git tree are taken as paths, and what is wrong with the others. Pure.

No name becomes a name on a disk here; these rules protect whoever later writes files by the paths of a dataset, and on
whatever file system: git's own folder has other names on those of Windows (`git~1`, `.git.`, `.git::$DATA`) and macOS.
"""

import hashlib
import re
import unicodedata

from codetune_trainer.scan.paths import PATH_BYTES, spell_path

_SHOWN_CHARACTERS = 200
_GIT_FOLDER = re.compile(r"(\.git|git~[0-9]+)[ .]*(:.*)?", re.DOTALL | re.IGNORECASE)
_BETWEEN = re.compile(rb"[/\\]")


def find_obstacle(name: bytes) -> str:
    """Why a path is refused; empty when it is not."""
    if len(name) > PATH_BYTES:
        return f"a path of {len(name)} bytes, more than {PATH_BYTES}"
    parts = name.split(b"/")
    if any(part in {b"", b"."} for part in parts) or b".." in _BETWEEN.split(name) or any(map(_is_git, parts)):
        return "a path that no work tree may have"
    return ""


def show(name: bytes) -> str:
    """A path as people read it; one that is too long is cut."""
    text = spell_path(name)
    if len(name) <= PATH_BYTES:
        return text
    return f"{text[:_SHOWN_CHARACTERS]}… ({hashlib.sha256(name).hexdigest()[:12]})"


def _is_git(part: bytes) -> bool:
    if b"g" not in part.lower():
        return False
    # macOS leaves out characters that show nothing (category Cf) when it compares names.
    text = "".join(letter for letter in part.decode(errors="replace") if unicodedata.category(letter) != "Cf")
    return _GIT_FOLDER.fullmatch(text) is not None
