"""Turns a file's bytes into text, or says why they are none. Pure."""

import codecs

import numpy as np

_MARKS = (  # UTF-32 first: its little-endian mark begins with UTF-16's
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_SHORT_BYTES = 2048
_LINE_BREAK = 10
_ALL_MARKS = tuple(mark for mark, _ in _MARKS)
_WIDE_MARKS = tuple(mark for mark, encoding in _MARKS if encoding != "utf-8")


class Undecodable(Exception):
    """Bytes that are no text."""


def decode(content: bytes) -> str:
    """The text of a file: UTF-8, or UTF-16/32 that begins with a byte order mark. The mark itself is dropped.

    Raises:
        Undecodable: The bytes are no such text; its message says where.
    """
    encoding, start = _find_mark(content)
    try:
        return content[start:].decode(encoding)
    except UnicodeDecodeError as error:
        position = error.start + start
        name = encoding.removesuffix("-le").removesuffix("-be").upper()
        found = f"byte 0x{content[position]:02x} at {position}" if position < len(content) else "cut off at its end"
        raise Undecodable(f"not {name}: {found}") from error


def is_plain(content: bytes) -> bool:
    """Whether bytes that decode are their text's own UTF-8, since no byte order mark is dropped."""
    return not content.startswith(_ALL_MARKS)


def is_blank(content: bytes) -> bool:
    """Whether there is nothing but white space behind a byte order mark, or at all."""
    if not content.startswith(_ALL_MARKS):
        return not content or content.isspace()
    encoding, start = _find_mark(content)
    rest = content[start:]
    return not (rest if encoding == "utf-8" else rest.replace(b"\0", b"")).strip()


def _find_mark(content: bytes) -> tuple[str, int]:
    """The encoding that a file says it has, and the length of the mark that says so in bytes."""
    if not content.startswith(_ALL_MARKS):
        return "utf-8", 0
    return next((encoding, len(mark)) for mark, encoding in _MARKS if content.startswith(mark))


def is_binary(content: bytes) -> bool:
    """Whether bytes are no text in any encoding that people write code in: a NUL without a wide encoding's mark."""
    return b"\0" in content and not content.startswith(_WIDE_MARKS)


def count_lines(content: bytes) -> int:
    """Lines of a text, the last one with or without a line break."""
    # numpy compares many bytes at once; `bytes.count` is faster for what is short.
    short = len(content) < _SHORT_BYTES
    breaks = content.count(b"\n") if short else int(np.count_nonzero(np.frombuffer(content, np.uint8) == _LINE_BREAK))
    return breaks + (not content.endswith(b"\n"))


def decode_anyhow(content: bytes) -> str:
    """Text of bytes that are none, for a file that a person insists on: what does not fit becomes U+FFFD."""
    return content.decode("utf-8", errors="replace").replace("\0", "\N{REPLACEMENT CHARACTER}")
