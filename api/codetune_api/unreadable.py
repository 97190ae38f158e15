"""Files of a model that a pod may not read, which libraries report as missing.

A model that root copied onto a volume may be root's alone: safetensors writes files of mode 0600, and pods run as a
user of their own.
"""

import os
from pathlib import Path

MAKE_READABLE = "Let everybody read its files: `chmod -R a+rX` in a pod that mounts the claim and runs as their owner."
"""What to do about it."""


def explain_unreadable(folder: Path) -> str | None:
    """A sentence on what in the folder this process may not read; None when it may read all, or nothing is there."""
    try:
        found = sorted(folder.iterdir())
    except PermissionError:
        return _say(folder)
    except OSError:
        return None
    return next((_say(path) for path in found if path.exists() and not os.access(path, os.R_OK)), None)


def _say(path: Path) -> str:
    return f"This pod runs as user {os.getuid()}, which may not read {path}"
