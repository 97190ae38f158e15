"""What contains a held-out file is found, whatever stands around it, and nothing else is.

The oracle finds words with a regular expression and compares plain sets of runs of them. Not tested: files whose shared
part is cut up by changes every few words. They may be missed, though never one that is contained in one piece.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from codetune_trainer.scan.dataset import containing
from codetune_trainer.scan.dataset.containing import CONTAINED, find_contained
from codetune_trainer.scan.dataset.deciding import Contained, Copies, Sides, reject_containing
from codetune_trainer.scan.dataset.ledger import RECORD
from codetune_trainer.scan.dataset.likeness import LEAST_SHINGLES, LOOK_BYTES, take_fingerprints
from codetune_trainer.scan.dataset.shingling import PIECE_BYTES, hash_by_pieces
from codetune_trainer.scan.records import REASONS
from hypothesis import given
from hypothesis import strategies as st


def shingles(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"(?:(?<!\\)[A-Za-z0-9_])(?:[A-Za-z0-9_])*|(?<=\\[A-Za-z0-9_])[A-Za-z0-9_]+", text)
    return set(zip(*(words[place:] for place in range(5)), strict=False))


def share_in(text: str, other: str) -> float:
    """How much of a text stands in another one."""
    own = shingles(text)
    return len(own & shingles(other)) / len(own) if len(own) >= LEAST_SHINGLES else 0.0


@dataclass(frozen=True)
class Tree:
    """Files to train on and held-out ones, in the order of their paths."""

    texts: Mapping[str, str]
    held_out: frozenset[str]

    def find(self) -> dict[str, tuple[str, float, int]]:
        """Of each file that contains held-out ones: which most, how much of it, and how many others."""
        paths = sorted(self.texts)
        data = [self.texts[path].encode() for path in paths]
        taken = take_fingerprints(data)
        records: Any = np.zeros(len(paths), RECORD)
        records["prints"] = taken.print_counts
        records["prints_at"] = np.cumsum(taken.print_counts) - taken.print_counts
        held_out = np.array([path in self.held_out for path in paths])
        sides = Sides(np.ones(len(paths), np.bool_), held_out, {})
        found = find_contained(
            records, sides, lambda first, count: taken.prints[first : first + count], data.__getitem__
        )
        return {paths[index]: (paths[one.index], one.share, one.others) for index, one in found.items()}


def tree(held_out: Mapping[str, str], trained: Mapping[str, str]) -> Tree:
    return Tree({**held_out, **trained}, frozenset(held_out))


def code(name: str, words: int = 200) -> str:
    """Text that no other name gives."""
    return "\n".join(f"{name}_{place} = call({name}{place})" for place in range(words // 3))


EXAM = code("exam")
SMALL = code("small", 30)
AROUND = code("before", 3000), code("behind", 3000)


def within(text: str) -> str:
    return f"{AROUND[0]}\n{text}\n{AROUND[1]}"


def escaped(text: str) -> str:
    """As a notebook has it."""
    lines = (line.replace("\\", "\\\\").replace('"', '\\"') for line in text.splitlines())
    return "\n".join(f'    "{line}\\n",' for line in lines)


def cut_to(text: str, share: float) -> str:
    """So much of a text."""
    return text[: int(len(text) * share)]


@pytest.mark.parametrize(
    ("expected", "held_out", "other"),
    [
        pytest.param(1.0, EXAM, within(EXAM), id="a-bundle"),
        pytest.param(1.0, SMALL, within(SMALL), id="a-bundle-with-a-small-file"),
        pytest.param(1.0, EXAM, f"{EXAM}\n{code('more', 60)}", id="a-file-with-a-little-more"),
        pytest.param(1.0, EXAM, within(EXAM.replace("\n", "\n\t  ")), id="indented"),
        pytest.param(1.0, EXAM, within(EXAM.replace("\n", "\r\n")), id="with-other-line-ends"),
        pytest.param(1.0, EXAM, within(escaped(EXAM)), id="a-notebook"),
        pytest.param(1.0, 'say("a\\tb\\n")\n' + EXAM, within(escaped('say("a\\tb\\n")\n' + EXAM)), id="with-escapes"),
        pytest.param(0.9, EXAM, within(cut_to(EXAM, 0.9)), id="most-of-it"),
        pytest.param(None, EXAM, within(cut_to(EXAM, 0.75)), id="too-little-of-it"),
        pytest.param(None, EXAM, within(code("other")), id="nothing-of-it"),
        pytest.param(None, within(EXAM), EXAM, id="the-other-way-round"),
        pytest.param(None, code("tiny", 21), within(code("tiny", 21)), id="too-small-to-tell"),
        pytest.param(None, "a, b,\n" * 500, "a, b,\n" * 900, id="the-same-few-words-again-and-again"),
        pytest.param(1.0, EXAM, f"{'x y ' * LOOK_BYTES}\n{EXAM}", id="behind-what-is-looked-at-for-likeness"),
        pytest.param(1.0, EXAM, f"{'x y ' * ((PIECE_BYTES - len(EXAM) // 2) // 4)}\n{EXAM}", id="across-two-pieces"),
        pytest.param(1.0, EXAM, f"{'x' * 2 * PIECE_BYTES}\n{EXAM}", id="behind-one-endless-word"),
        pytest.param(1.0, code("long", 60_000), within(code("long", 60_000)), id="a-long-file"),
    ],
)
def test_a_file_contains_a_held_out_one(expected: float | None, held_out: str, other: str) -> None:
    found = tree({"exam.py": held_out}, {"other.py": other, "rest.py": code("rest")}).find()
    assert set(found) == ({"other.py"} if expected else set())
    if expected:
        path, share, others = found["other.py"]
        assert (path, others) == ("exam.py", 0)
        assert share == share_in(held_out, other)
        assert share == pytest.approx(expected, abs=0.03)


def test_of_several_that_are_contained_the_one_with_most_is_named_and_the_others_are_counted() -> None:
    exams = {f"exam{number}.py": code(f"exam{number}") for number in range(4)}
    bundle = within("\n".join([cut_to(exams["exam0.py"], 0.9), exams["exam1.py"], exams["exam2.py"]]))
    assert tree(exams, {"bundle.py": bundle}).find() == {"bundle.py": ("exam1.py", 1.0, 2)}


def test_every_file_that_contains_one_is_found() -> None:
    trained = {f"bundle{number}.py": f"{code(f'own{number}', 600)}\n{EXAM}" for number in range(40)}
    assert set(tree({"exam.py": EXAM}, trained).find()) == set(trained)


PREAMBLE = code("preamble", 150)


@pytest.mark.parametrize(
    ("expected", "exam_of"),
    [
        pytest.param(set(), lambda own: PREAMBLE, id="nothing-but-a-preamble"),
        pytest.param(
            set(), lambda own: f"{PREAMBLE}\n{code('else', 30)}", id="a-preamble-and-a-little-that-is-its-own"
        ),
        pytest.param({"bundle.py"}, lambda own: f"{PREAMBLE}\n{own}", id="a-preamble-and-code"),
    ],
)
def test_what_stands_in_many_files_on_both_sides_tells_nothing(expected: set[str], exam_of: Any) -> None:
    held_out = {f"exam{number}.py": f"{PREAMBLE}\n{code(f'exam{number}')}" for number in range(6)}
    held_out["exam.py"] = exam_of(EXAM)
    trained = {f"file{number}.py": f"{PREAMBLE}\n{code(f'own{number}', 60)}" for number in range(30)}
    assert set(tree(held_out, {**trained, "bundle.py": within(f"{PREAMBLE}\n{EXAM}")}).find()) == expected


def test_what_stands_in_a_few_held_out_files_still_tells() -> None:
    held_out = {f"exam{number}.py": f"{PREAMBLE}\n{code(f'exam{number}', 24)}" for number in range(3)}
    trained = {f"file{number}.py": f"{PREAMBLE}\n{code(f'own{number}', 60)}" for number in range(30)}
    assert set(tree(held_out, trained).find()) == set(trained)


WORDS = st.lists(st.sampled_from([f"w{number}" for number in range(12)]), min_size=24, max_size=60)


@given(st.lists(WORDS, min_size=1, max_size=4), st.lists(WORDS, min_size=1, max_size=4), st.data())
def test_what_is_contained_in_one_piece_is_always_found_and_what_is_found_is_so(
    exams: list[list[str]], others: list[list[str]], data: st.DataObject
) -> None:
    held_out = {f"exam{number}": " ".join(words) for number, words in enumerate(exams)}
    trained = {f"other{number}": " ".join(words) for number, words in enumerate(others)}
    taken = data.draw(st.sampled_from(sorted(held_out)))
    trained["bundle"] = f"{trained['other0']} {held_out[taken]} {trained['other0']}"
    found = tree(held_out, trained).find()
    assert "bundle" in found or not share_in(held_out[taken], trained["bundle"])
    for path, (exam, share, _) in found.items():
        assert share == share_in(held_out[exam], trained[path]) >= CONTAINED


@pytest.mark.parametrize("words", [60, 3000, 60_000])
def test_every_window_of_a_text_has_its_print_wherever_the_text_is_cut(words: int) -> None:
    text = code("long", words).encode()
    hashes = np.concatenate([*hash_by_pieces(text, 0)])
    windows = np.lib.stride_tricks.sliding_window_view(hashes, 16)
    taken = take_fingerprints([b"before", text, b"behind"])
    assert set(taken.prints.tolist()) == {int(smallest) % 2**32 for smallest in windows.min(axis=1)}
    assert taken.print_counts.tolist() == [0, len(taken.prints), 0]


def test_pieces_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    exams = {f"exam{number}.py": code(f"exam{number}") for number in range(12)}
    trained = {f"b{number}.py": within("\n".join([*exams.values()][number : number + 3])) for number in range(10)}
    files = tree(exams, trained)
    expected = files.find()
    assert len(expected) == 10
    for name in ("_PRINTS_TOGETHER", "_COMPARED_TOGETHER"):
        monkeypatch.setattr(containing, name, 50)
    assert files.find() == expected


@pytest.mark.parametrize(
    ("held_out", "trained"),
    [
        pytest.param({}, {"a.py": EXAM}, id="nothing-held-out"),
        pytest.param({"a.py": EXAM}, {}, id="nothing-to-train-on"),
        pytest.param({"a.py": "x = 1\n"}, {"b.py": "x = 1\ny = 2\n"}, id="no-prints"),
    ],
)
def test_there_may_be_nothing_to_compare(held_out: dict[str, str], trained: dict[str, str]) -> None:
    assert tree(held_out, trained).find() == {}


def test_what_contains_a_held_out_file_goes_and_nothing_else_does() -> None:
    copies = Copies(np.zeros(3, np.uint8), np.arange(3))
    sides = Sides(np.ones(3, np.bool_), np.array([True, False, False]), {})
    after = reject_containing(copies, sides, {2: Contained(0, 0.9)})
    assert after.kept.tolist() == [True, True, False]
    assert after.held_out.tolist() == sides.held_out.tolist()
    assert [REASONS[reason] for reason in copies.reasons] == ["", "", "ContainsHeldOut"]
