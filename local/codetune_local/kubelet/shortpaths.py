"""Short names for pod folders, because a UNIX socket's path may have only 107 characters (103 on macOS).

Programs put sockets into TMPDIR (ZeroMQ, multiprocessing), and a state folder deep in somebody's home would be too long
already. So each pod is shown its files below a link in a small private folder of /tmp.
"""

import os
import shutil
import stat
import tempfile
from pathlib import Path

ROOT = Path("/tmp")
_NAME = "short-paths"


def open_short_folder(state: Path) -> Path:
    """The private folder in /tmp that belongs to a state folder; made when it is missing."""
    known = state / _NAME
    if known.exists():
        folder = Path(known.read_text())
        if _is_private(folder):
            return folder
        try:
            folder.mkdir(mode=0o700)  # /tmp was cleaned: what still runs knows its files by the old name
            return folder
        except FileExistsError:
            known.unlink()  # somebody else took the name: a new one
    folder = Path(tempfile.mkdtemp(prefix="ct-", dir=ROOT))
    known.write_text(str(folder))
    return folder


def _is_private(folder: Path) -> bool:
    try:
        found = folder.lstat()
    except FileNotFoundError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077


def remove_short_folder(state: Path) -> None:
    """Remove it with its links, never what they lead to."""
    known = state / _NAME
    if known.exists():
        folder = Path(known.read_text())
        if _is_private(folder):
            shutil.rmtree(folder)
        known.unlink()
