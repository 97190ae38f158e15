"""Where a text is cut for fill-in-the-middle: the kinds of middles, their shares, and texts with nothing to cut."""

import random

import pytest
from codetune_trainer.train.data import cutting
from codetune_trainer.train.data.cutting import choose_cut, find_lines
from hypothesis import given
from hypothesis import strategies as st

CODE = (
    "import os\r\n\n\ndef save(path, text):\n    if text:\n        with open(path) as file:\n"
    "            file.write(text)\n    return path   \n\n\nSIZE = 3\n"
)
LINES = ["import os", "def save(path, text):", "if text:", "with open(path) as file:", "file.write(text)",
         "return path", "SIZE = 3"]  # fmt: skip


def test_lines_are_what_stands_in_them_without_white_space_at_their_ends() -> None:
    found = find_lines(CODE)
    assert [CODE[line.start : line.stop] for line in found] == LINES
    assert [line.indent for line in found] == [0, 0, 4, 8, 12, 4, 0]


def _kind(text: str, first: int, second: int) -> str:
    """What a cut looks like from outside."""
    lines = find_lines(text)
    ends = {line.stop for line in lines}
    holder = next((line for line in lines if line.start <= first < second <= line.stop), None)
    if holder and second in ends:
        return "end of a line"
    if holder:
        return "inside a line"
    starts = {line.start for line in lines} | ends
    return "lines" if first in starts and second in ends else "any span"


def test_the_kinds_of_middles_come_in_their_documented_shares() -> None:
    chance = random.Random(1)
    kinds = [_kind(CODE, *choose_cut(CODE, chance)) for _ in range(4000)]
    shares = {kind: kinds.count(kind) / len(kinds) for kind in set(kinds)}
    assert [share for share, _ in cutting.SHARES] == [0.3, 0.3, 0.2]
    # A block may be one line, and any span may lie inside a line or end with one.
    assert 0.30 <= shares["end of a line"] <= 0.47
    assert 0.17 <= shares["inside a line"] <= 0.30
    assert 0.13 <= shares["lines"] <= 0.35
    assert 0.10 <= shares["any span"] <= 0.22


def test_a_block_ends_before_the_first_line_that_is_indented_less() -> None:
    lines = find_lines(CODE)
    seen = set()
    for seed in range(300):
        first, second = cutting._cut_block(CODE, lines, random.Random(seed))
        seen.add(CODE[first:second])
    whole = "if text:\n        with open(path) as file:\n            file.write(text)\n    return path"
    assert whole in seen
    assert f"\n    {whole}" in seen  # the cursor stands at the end of the line before
    assert not any(block.startswith("if text") and "SIZE" in block for block in seen)


def test_a_block_has_at_most_eight_lines() -> None:
    text = "".join(f"value_{index} = {index}\n" for index in range(40))
    lines = find_lines(text)
    for seed in range(200):
        first, second = cutting._cut_block(text, lines, random.Random(seed))
        assert text[first:second].strip().count("\n") < 8


@given(text=st.text(max_size=60), seed=st.integers(0, 500))
def test_a_cut_lies_in_its_text(text: str, seed: int) -> None:
    first, second = choose_cut(text, random.Random(seed))
    assert 0 <= first <= second <= len(text)


@pytest.mark.parametrize("text", ["", "x", " ", "\n\n", "    \n"])
def test_texts_with_hardly_anything_in_them_are_cut_too(text: str) -> None:
    for seed in range(20):
        first, second = choose_cut(text, random.Random(seed))
        assert 0 <= first <= second <= len(text)


def test_a_middle_of_a_line_is_never_empty() -> None:
    for seed in range(500):
        for choose in (cutting._cut_line_end, cutting._cut_inside_line, cutting._cut_block):
            first, second = choose(CODE, find_lines(CODE), random.Random(seed))
            assert first < second
