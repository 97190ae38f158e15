"""Files that no person reads line by line, told by their shape: long lines, minified code, numbers. Pure."""

import re

_MINIFIED_NAME = re.compile(r".*[.-]min\.(js|mjs|cjs|css|html)", re.IGNORECASE)
_MINIFIED_LANGUAGES = frozenset({"JavaScript", "CSS", "HTML", "TypeScript"})
MINIFIED_LINE_CHARACTERS = 110
"""JavaScript, TypeScript, CSS and HTML whose lines are longer on average are taken as minified."""
_MINIFIED_LEAST_CHARACTERS = 2000
DIGITS_SHARE = 0.4
"""Share of digits in what is no white space above which a file counts as a table of numbers."""
_RUNS, _RUN_BYTES = 16, 64
"""Of a larger file, so many runs of so many bytes are looked at, evenly spread. Not single bytes: in a table of fixed
width their distance could be that of the columns."""
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
    sample = _take_sample(content).translate(None, _BLANK)
    share = 1 - len(sample.translate(None, _DIGITS)) / max(len(sample), 1)
    return f"{share:.0%} of its characters are digits" if share > DIGITS_SHARE else ""


def _take_sample(content: bytes) -> bytes:
    if len(content) <= _RUNS * _RUN_BYTES:
        return content
    step = (len(content) - _RUN_BYTES) // (_RUNS - 1)
    return b"".join([content[at : at + _RUN_BYTES] for at in range(0, _RUNS * step, step)])
