"""Files that no person reads line by line, told by their shape: long lines, minified code, numbers. Pure."""

import re

_MINIFIED_NAME = re.compile(r".*[.-]min\.(js|mjs|cjs|css|html)", re.IGNORECASE)
_MINIFIED_LANGUAGES = frozenset({"JavaScript", "CSS", "HTML", "TypeScript"})
MINIFIED_LINE_CHARACTERS = 110
"""JavaScript, TypeScript, CSS and HTML whose lines are longer on average are taken as minified."""
_MINIFIED_LEAST_CHARACTERS = 2000
DIGITS_SHARE = 0.4
"""Share of digits in what is no white space above which a file counts as a table of numbers."""
_DIGITS_SAMPLE = 1021
"""Bytes that are looked at, evenly spread: enough for a standard error of 1.5 %."""
_DIGITS_GLANCE = 127
"""Bytes that are looked at before, with a standard error of 4.4 %: no table of numbers has less than half the share."""
DIGITS_LEAST_BYTES = 512
"""Smaller files are code with a few numbers."""
_BLANK, _DIGITS = b" \t\r\n", b"0123456789"


def find_minified(name: str, language: str, text: str) -> str:
    """What shows that a file is minified, "" when nothing does."""
    if _MINIFIED_NAME.fullmatch(name):
        return f"a minifier's file name: {name}"
    if language not in _MINIFIED_LANGUAGES or len(text) < _MINIFIED_LEAST_CHARACTERS:
        return ""
    average = len(text) // (text.count("\n") + 1)
    return f"{average} characters a line on average" if average > MINIFIED_LINE_CHARACTERS else ""


def find_long_line(text: str, limit: int) -> str:
    """The first line of more than `limit` characters, "" when there is none."""
    start, size = 0, len(text)
    while size - start > limit:
        # Any line break within the next `limit` characters shows that no line from here to it is too long.
        end = text.rfind("\n", start, start + limit + 1)
        if end < 0:
            end = text.find("\n", start + limit + 1)
            length = (size if end < 0 else end) - start
            return f"line {text.count(chr(10), 0, start) + 1} has {length} characters, more than {limit}"
        start = end + 1
    return ""


def find_digits(content: bytes) -> str:
    """What shows that a file is mostly digits, "" when it is not."""
    if len(content) < DIGITS_LEAST_BYTES:
        return ""
    if _share_of_digits(content, _DIGITS_GLANCE) < DIGITS_SHARE / 2:
        return ""
    share = _share_of_digits(content, _DIGITS_SAMPLE)
    return f"{share:.0%} of its characters are digits" if share > DIGITS_SHARE else ""


def _share_of_digits(content: bytes, looked_at: int) -> float:
    sample = content[:: len(content) // looked_at + 1].translate(None, _BLANK)
    return 1 - len(sample.translate(None, _DIGITS)) / max(len(sample), 1)
