"""Writes the bytes of a path as text, so that two paths never become one, and what ails a path. Pure."""

import re

PATH_BYTES = 4096
"""Longest path that is taken, as in Linux's own calls."""
_POSING = re.compile(rb"\\(?=x[0-9a-f]{2})")


def spell_path(raw: bytes) -> str:
    """The text of a path: bytes that are no UTF-8 as `\\xNN`, and so a backslash that would look like such a byte."""
    told = _POSING.sub(rb"\\x5c", raw) if b"\\" in raw else raw
    return told.decode("utf-8", errors="backslashreplace")


def say_why(error: Exception) -> str:
    """Why a path leads nowhere, without the path."""
    if isinstance(error, RuntimeError):  # what pathlib raises
        return "it is a link that leads in a circle"
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)
