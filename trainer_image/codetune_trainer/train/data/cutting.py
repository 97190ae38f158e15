"""Where a text is cut for fill-in-the-middle: the middle is what an editor asks for. Pure.

Cuts lie between characters, as a cursor does. Most middles are what is missing while somebody types: the end of a line,
a few lines to the end of a block, a span inside a line; the rest is any span at all, as in arXiv:2207.14255.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

BLOCK_LINES = 8
"""Most lines of a middle that completes a block."""

Cut = tuple[int, int]
"""Characters [first, second) of a text are its middle."""


@dataclass(frozen=True)
class Line:
    """What a line that is not blank holds: characters [start, stop), without indentation and white space at its end."""

    start: int
    stop: int
    indent: int
    """Characters of white space before it."""


def find_lines(text: str) -> list[Line]:
    """The lines of a text that hold anything."""
    lines, at = [], 0
    for line in text.split("\n"):
        content = line.strip()
        if content:
            indent = len(line) - len(line.lstrip())
            lines.append(Line(at + indent, at + indent + len(content), indent))
        at += len(line) + 1
    return lines


def choose_cut(text: str, chance: random.Random) -> Cut:
    """One middle of a text, of a kind drawn by `SHARES`; any span where the text has no line to cut."""
    lines = find_lines(text)
    draw = chance.random()
    for share, choose in SHARES:
        if draw < share:
            return choose(text, lines, chance) if lines else _cut_anywhere(text, lines, chance)
        draw -= share
    return _cut_anywhere(text, lines, chance)


def _cut_line_end(_text: str, lines: list[Line], chance: random.Random) -> Cut:
    """The cursor stands somewhere in a line; the rest of the line is missing."""
    line = chance.choice(lines)
    return chance.randrange(line.start, line.stop), line.stop


def _cut_block(text: str, lines: list[Line], chance: random.Random) -> Cut:
    """The cursor stands where a line begins, or at the end of the one before; what its block still holds is missing."""
    first = chance.randrange(len(lines))
    last = first
    while last + 1 < len(lines) and last + 1 - first < BLOCK_LINES and lines[last + 1].indent >= lines[first].indent:
        last += 1
    # Anywhere up to there: whoever writes a block stops after each line of it.
    last = chance.randint(first, last) if chance.random() < 0.5 else last
    start = lines[first].start
    if first and chance.random() < 0.5:
        start = lines[first - 1].stop
    return start, lines[last].stop


def _cut_inside_line(_text: str, lines: list[Line], chance: random.Random) -> Cut:
    """A part of a line is missing, and its end is there."""
    line = chance.choice(lines)
    if line.stop - line.start < 3:
        return line.start, line.stop
    first, second = sorted(chance.sample(range(line.start, line.stop), 2))
    return first, second


def _cut_anywhere(text: str, _lines: list[Line], chance: random.Random) -> Cut:
    """Any span of the text, however long."""
    first, second = sorted(chance.sample(range(len(text) + 1), 2)) if len(text) > 1 else (0, len(text))
    return first, second


# What is left of 1 is any span.
SHARES: tuple[tuple[float, Callable[[str, list[Line], random.Random], Cut]], ...] = (
    (0.3, _cut_line_end),
    (0.3, _cut_block),
    (0.2, _cut_inside_line),
)
