"""The comments at a text's beginning that tell a licence: they make files alike that have nothing else in common. Pure.

Comments are told by their form alone, whatever the language: what is left out decides nothing but what is compared.
"""

import re

from codetune_trainer.scan.rules.licensing import tells_licence

HEAD_BYTES = 8192
"""A comment that goes on behind these is no header."""
_MOST_COMMENTS = 16
"""Comments at a text's beginning that are looked at."""

# All of it is possessive (`*+`, `++`) or ends at the first place where it can: time is linear in the head's length.
_BREAK = rb"(?:\r\n?|\n|\Z)"
_LINE_MARKS = (
    rb"//",
    rb"--(?!\[\[)",
    rb";(?!\()",  # not JavaScript's `;(function`
    rb"%",
    # The preprocessor's and Rust's lines are code: `#include`, `#![no_std]`, `#[test]`.
    rb"#(?!!?\[|include|define|if|pragma|import|undef|error|region|using|nullable)",
)
_RUNS = [rb"(?:[ \t]*+%b[^\r\n]*+%b)++" % (mark, _BREAK) for mark in _LINE_MARKS]
_BOX = rb"(?:[ \t]*+/\*[^\r\n]*?\*/[ \t]*+%b)++" % _BREAK
"""Comments of one line each, one below the other."""
_BLOCKS = [
    rb"/\*.*?\*/",
    rb"<!--.*?-->",
    rb"\(\*.*?\*\)",
    rb"\{-.*?-\}",
    rb"--\[\[.*?\]\]",
    rb"[rR]?(?:\"\"\".*?\"\"\"|'''.*?''')",
]
_COMMENT = re.compile(rb"[ \t]*+(?:%b)" % b"|".join([_BOX, *_BLOCKS, *_RUNS]), re.DOTALL)
_BEFORE = re.compile(rb"(?:\s|<\?(?:php\b|xml[^>]*+>)|<!doctype[^>]*+>)*+", re.IGNORECASE)
"""What may stand before a comment that is at the beginning all the same."""


def cut_header(text: bytes) -> bytes:
    """A text without the comments at its beginning that tell a licence or copyright.

    Args:
        text: In UTF-8.
    """
    at = kept = 0
    parts: list[bytes] = []
    for _ in range(_MOST_COMMENTS):
        before = _BEFORE.match(text, at, HEAD_BYTES)
        assert before is not None  # it takes nothing, too
        start = before.end()
        comment = _COMMENT.match(text, start, HEAD_BYTES)
        if comment is None or HEAD_BYTES <= comment.end() < len(text):
            break
        at = comment.end()
        if tells_licence(comment[0]):
            parts.append(text[kept:start])
            kept = at
    return b"".join([*parts, text[kept:]]) if kept else text
