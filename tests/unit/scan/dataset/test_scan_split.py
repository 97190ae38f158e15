"""The held-out split: a share, stable, never the same content on both sides.

Skipped on purpose where it is about stability: lists so short that one file is held out only because something must be.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pytest
from codetune_api.project import FileRules
from codetune_trainer.scan.dataset.deciding import Copies, Sides, choose_sides, find_copies, reject_low_quality
from codetune_trainer.scan.dataset.ledger import MUST, NORMAL_BYTES, RECORD, WANTED
from codetune_trainer.scan.dataset.likeness import take_fingerprints
from codetune_trainer.scan.digesting import digest_text
from codetune_trainer.scan.records import REASONS
from hypothesis import given
from hypothesis import strategies as st

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class File:
    """A file that was judged by itself."""

    path: str
    content: str
    held_out: bool = False
    wanted: bool = False
    reason: str = ""


def judged(
    path: str, content: str = "", *, held_out: bool = False, wanted: bool = False, reason: Literal["Empty", ""] = ""
) -> File:
    return File(path, content or path, held_out, wanted, reason)


@dataclass(frozen=True)
class Settled:
    """What became of files."""

    files: list[File]
    copies: Copies
    sides: Sides

    @property
    def decisions(self) -> list[str]:
        pairs = zip(self.sides.kept, self.sides.held_out, strict=True)
        return ["rejected" if not kept else "holdout" if held_out else "train" for kept, held_out in pairs]

    @property
    def reasons(self) -> list[str]:
        return [REASONS[number] for number in self.copies.reasons]

    def originals(self) -> dict[str, tuple[str, str]]:
        """Of each copy, its original and the rule that it falls under."""
        return {
            self.files[index].path: (self.files[original.index].path, original.reason)
            for index, original in self.copies.originals.items()
        }


def run(
    files: list[File],
    fraction: float,
    allow: bool = False,
    near: Literal["Reject", "Allow", "Ignore"] = "Reject",
    low_quality: Mapping[bytes, str] | None = None,
) -> Settled:
    taken = take_fingerprints([file.content.encode() for file in files])
    records: Any = np.zeros(len(files), RECORD)
    for index, file in enumerate(files):
        digest, normal = digest_text(file.content.encode())
        records[index]["reason"] = REASONS.index(file.reason)
        records[index]["digest"] = b"" if file.reason else digest
        records[index]["normal"] = b"" if file.reason else normal[:NORMAL_BYTES]
        records[index]["chance"] = int.from_bytes(hashlib.sha256(b"\0" + normal).digest()[:8])
        records[index]["flags"] = MUST * file.held_out | WANTED * file.wanted
        records[index]["signature"] = index if taken.comparable[index] and not file.reason else -1
    records["bands"] = taken.bands
    rules = FileRules(duplicates="Allow" if allow else "Reject", near_duplicates=near)
    copies = find_copies(records, lambda indices: taken.signatures[indices], rules, fraction)
    reject_low_quality(records, copies, low_quality or {})
    return Settled(files, copies, choose_sides(records, copies, fraction))


def split(files: list[File], fraction: float, allow: bool = False) -> dict[str, str]:
    settled = run(files, fraction, allow)
    return dict(zip([file.path for file in files], settled.decisions, strict=True))


CONTENTS = st.lists(st.tuples(st.text("abcd", min_size=1, max_size=3), st.booleans()), max_size=30)
FRACTIONS = st.sampled_from([0.0, 0.1, 0.3, 0.5])


def numbered(contents: list[tuple[str, bool]]) -> list[File]:
    return [judged(f"s/{number:03}", content, held_out=must) for number, (content, must) in enumerate(contents)]


@given(CONTENTS, FRACTIONS, st.booleans())
def test_no_content_is_ever_on_both_sides(contents: list[tuple[str, bool]], fraction: float, allow: bool) -> None:
    sides: dict[str, set[str]] = {"train": set(), "holdout": set(), "rejected": set()}
    files = numbered(contents)
    for file, decision in zip(files, run(files, fraction, allow).decisions, strict=True):
        sides[decision].add(file.content)
    assert not sides["train"] & sides["holdout"]


@given(CONTENTS, FRACTIONS, st.booleans(), st.data())
def test_no_code_is_on_both_sides_by_other_line_ends(
    contents: list[tuple[str, bool]], fraction: float, allow: bool, data: st.DataObject
) -> None:
    sides: dict[str, set[str]] = {"train": set(), "holdout": set(), "rejected": set()}
    ends, tails = st.sampled_from(["\n", "\r\n", "\r"]), st.sampled_from(["", "\n", " \n\t\n", "\r\n\r\n"])
    lines = ["\n".join(content) for content, _ in contents]
    written = [(text.replace("\n", data.draw(ends)) + data.draw(tails)) for text in lines]
    files = numbered([(text, must) for text, (_, must) in zip(written, contents, strict=True)])
    for text, decision in zip(lines, run(files, fraction, allow).decisions, strict=True):
        sides[decision].add(text)
    assert not sides["train"] & sides["holdout"]


@given(CONTENTS, FRACTIONS, st.booleans())
def test_what_holdout_paths_name_is_never_trained_on(
    contents: list[tuple[str, bool]], fraction: float, allow: bool
) -> None:
    must = {content for content, named in contents if named}
    decisions = run(numbered(contents), fraction, allow).decisions
    for decision, (content, _) in zip(decisions, contents, strict=True):
        assert decision != "train" or content not in must


@given(CONTENTS, FRACTIONS)
def test_a_fraction_leaves_both_sides_something_where_there_are_two_contents(
    contents: list[tuple[str, bool]], fraction: float
) -> None:
    free = [(content, False) for content, _ in contents]
    decisions = set(run(numbered(free), fraction).decisions)
    distinct = len({content for content, _ in free})
    assert ("train" in decisions) == (distinct > 0)
    assert ("holdout" in decisions) == (fraction > 0 and distinct > 1)


@given(st.sets(st.text("abcdefgh", min_size=1, max_size=6), min_size=120, max_size=200), st.data())
def test_adding_files_moves_no_other_file(names: set[str], data: st.DataObject) -> None:
    # 120 files: with fewer, the one that is held out because something must be can change.
    more = data.draw(st.sets(st.text("ijkl", min_size=1, max_size=6), max_size=20))
    before = split([judged(name) for name in sorted(names)], 0.5)
    after = split([judged(name) for name in sorted(names | more)], 0.5)
    assert {name: after[name] for name in before} == before


def test_the_share_comes_near_the_fraction() -> None:
    decisions = split([judged(f"s/f{number:05}") for number in range(5000)], 0.1)
    share = sum(decision == "holdout" for decision in decisions.values()) / 5000
    assert share == pytest.approx(0.1, abs=0.02)


@pytest.mark.parametrize(
    ("expected", "files", "fraction"),
    [
        pytest.param({"s/a": "train"}, [judged("s/a")], 0.5, id="a-single-file-is-trained-on"),
        pytest.param({"s/a": "holdout"}, [judged("s/a", held_out=True)], 0.0, id="unless-it-is-named"),
        pytest.param({"s/a": "train", "s/b": "train"}, [judged("s/a"), judged("s/b")], 0.0, id="no-fraction"),
        pytest.param(
            {"s/a": "holdout", "s/b": "rejected"},
            [judged("s/a", "x"), judged("s/b", "x", held_out=True)],
            0.0,
            id="a-named-copy-holds-its-original-out",
        ),
        pytest.param(
            {"s/a": "rejected", "s/b": "train"},
            [judged("s/a", reason="Empty"), judged("s/b")],
            0.3,
            id="rejected-files-have-no-side",
        ),
    ],
)
def test_small_cases(expected: dict[str, str], files: list[File], fraction: float) -> None:
    assert split(files, fraction) == expected


def test_at_least_one_is_held_out_of_two() -> None:
    for number in range(50):
        decisions = split([judged(f"s/a{number}"), judged(f"s/b{number}")], 0.01)
        assert sorted(decisions.values()) == ["holdout", "train"]


def test_the_first_copy_in_path_order_is_the_original() -> None:
    settled = run([judged("s/a", "x"), judged("s/b", "x"), judged("s/c", "x", wanted=True)], 0.0)
    assert settled.decisions == ["train", "rejected", "train"]
    assert settled.reasons == ["", "Duplicate", ""]
    assert settled.originals() == {"s/b": ("s/a", "Duplicate"), "s/c": ("s/a", "Duplicate")}


@pytest.mark.parametrize("number", range(20))
def test_copies_that_are_allowed_stand_on_one_side(number: int) -> None:
    copies = [judged(f"s/{name}", f"content {number}") for name in "abc"]
    others = [judged(f"s/z{index}") for index in range(20)]
    decisions = split([*copies, *others], 0.5, allow=True)
    assert len({decisions[copy.path] for copy in copies}) == 1


def code(number: int, words: int = 200) -> str:
    """A text of its own of so many words."""
    return " ".join(f"word{number}_{place}" for place in range(words))


def altered(text: str) -> str:
    """The text with one word in its middle changed: about 95 % alike."""
    words = text.split()
    words[len(words) // 2] = "other"
    return " ".join(words)


@pytest.mark.parametrize(
    ("expected", "files", "near"),
    [
        pytest.param(
            ["train", "rejected"], [judged("s/a", code(1)), judged("s/b", altered(code(1)))], "Reject", id="rejected"
        ),
        pytest.param(["train", "train"], [judged("s/a", code(1)), judged("s/b", code(2))], "Reject", id="unlike"),
        pytest.param(
            ["train", "train"], [judged("s/a", code(1, 20)), judged("s/b", code(1, 21))], "Reject", id="too-short"
        ),
        pytest.param(
            ["rejected", "holdout"],
            [judged("s/a", code(1)), judged("s/b", altered(code(1)), held_out=True)],
            "Reject",
            id="what-is-held-out-comes-first",
        ),
        pytest.param(
            ["rejected", "holdout", "rejected"],
            [judged("s/a", code(1)), judged("s/b", altered(code(1))), judged("s/c", altered(code(1)), held_out=True)],
            "Reject",
            id="a-rejected-copy-holds-its-original-out-and-near-copies-with-it",
        ),
        pytest.param(
            ["holdout", "holdout"],
            [judged("s/a", code(1), wanted=True), judged("s/b", altered(code(1)), held_out=True)],
            "Reject",
            id="wanted-and-so-on-the-same-side",
        ),
        pytest.param(
            ["holdout", "holdout"],
            [judged("s/a", code(1)), judged("s/b", altered(code(1)), held_out=True)],
            "Allow",
            id="allowed-and-on-one-side",
        ),
        pytest.param(
            ["train", "holdout"],
            [judged("s/a", code(1)), judged("s/b", altered(code(1)), held_out=True)],
            "Ignore",
            id="not-looked-for",
        ),
    ],
)
def test_near_copies(expected: list[str], files: list[File], near: Literal["Reject", "Allow", "Ignore"]) -> None:
    assert run(files, 0.0, near=near).decisions == expected


def test_of_several_originals_the_most_alike_is_named() -> None:
    base = code(1, 400)
    far = altered(altered_at(base, 100))
    settled = run([judged("s/a", altered_at(far, 300)), judged("s/b", base), judged("s/c", altered(base))], 0.0)
    assert settled.originals()["s/c"][0] in {"s/a", "s/b"}
    assert settled.reasons[0] == ""


def altered_at(text: str, place: int) -> str:
    words = text.split()
    words[place] = "another"
    return " ".join(words)


def test_a_cluster_that_is_taken_costs_one_entry_a_file() -> None:
    files = [judged(f"s/{number:03}", altered_at(code(1, 400), number)) for number in range(300)]
    settled = run(files, 0.5, near="Allow")
    assert len(set(settled.decisions)) == 1
    assert len(settled.copies.groups) == len(files)
    leader = min(range(len(files)), key=lambda index: hashlib.sha256(files[index].content.encode()).digest())
    assert settled.copies.groups[leader] == leader


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), min_size=2, max_size=16), st.booleans())
def test_near_copies_that_are_kept_never_stand_on_both_sides(versions: list[tuple[int, int]], allow: bool) -> None:
    texts = {0: code(0), 1: code(1), 2: code(2), 3: code(3), 4: code(4)}
    files = [
        judged(f"s/{index:02}", altered_at(texts[number], place * 40), wanted=index % 3 == 0)
        for index, (number, place) in enumerate(versions)
    ]
    settled = run(files, 0.5, allow, near="Allow" if allow else "Reject")
    sides: dict[int, set[str]] = {}
    for (number, _), decision in zip(versions, settled.decisions, strict=True):
        sides.setdefault(number, set()).add(decision)
    assert all(not {"train", "holdout"} <= decisions for decisions in sides.values())


@given(st.sets(st.integers(0, 400), min_size=150, max_size=200), st.data())
def test_near_copies_move_no_file_of_another_group(numbers: set[int], data: st.DataObject) -> None:
    texts = [judged(f"s/{number:03}", code(number, 40)) for number in sorted(numbers)]
    copied = data.draw(st.sampled_from(sorted(numbers)))
    copy = judged("s/zzz", altered_at(code(copied, 40), 39))
    before, after = run(texts, 0.5), run([*texts, copy], 0.5)
    own = sorted(numbers).index(copied)
    assert [*after.decisions[:own], *after.decisions[own + 1 : -1]] == [
        *before.decisions[:own],
        *before.decisions[own + 1 :],
    ]
    # One of the two goes: the later one, unless it alone is to be held out.
    pair = (before.decisions[own], after.decisions[own], after.decisions[-1])
    assert pair in {
        ("train", "train", "rejected"),
        ("holdout", "holdout", "rejected"),
        ("train", "rejected", "holdout"),
    }


BASE = {f"s/f{number:03}.py": f"content {number}" for number in range(120)}
"""Enough files that both sides have some, whatever is done to some of them."""
FRACTIONS = st.sampled_from([0.1, 0.3, 0.5])
SOME = st.sets(st.sampled_from(sorted(BASE)), max_size=40)


def split_texts(texts: dict[str, str], fraction: float, *, allow: bool = False) -> dict[str, str]:
    """Path → decision."""
    return split([judged(path, texts[path]) for path in sorted(texts)], fraction, allow)


@given(gone=SOME, fraction=FRACTIONS, allow=st.booleans())
def test_removing_files_moves_no_other_file(gone: set[str], fraction: float, allow: bool) -> None:
    before = split_texts(BASE, fraction, allow=allow)
    after = split_texts({path: text for path, text in BASE.items() if path not in gone}, fraction, allow=allow)
    assert after == {path: decision for path, decision in before.items() if path not in gone}


@given(moved=SOME, fraction=FRACTIONS, allow=st.booleans())
def test_renaming_files_moves_no_file(moved: set[str], fraction: float, allow: bool) -> None:
    before = split_texts(BASE, fraction, allow=allow)
    named = {path: f"r/{path}" if path in moved else path for path in BASE}
    after = split_texts({named[path]: text for path, text in BASE.items()}, fraction, allow=allow)
    assert {path: after[named[path]] for path in BASE} == before


@given(edited=SOME, fraction=FRACTIONS, allow=st.booleans())
def test_editing_files_moves_no_other_file(edited: set[str], fraction: float, allow: bool) -> None:
    before = split_texts(BASE, fraction, allow=allow)
    after = split_texts({**BASE, **{path: f"new {path}" for path in edited}}, fraction, allow=allow)
    assert {path: after[path] for path in BASE if path not in edited} == {
        path: decision for path, decision in before.items() if path not in edited
    }


NEAR = {f"s/n{number:03}.py": code(number, 40) for number in range(60)}
"""Files that others can be alike to."""


def sides_of_contents(files: list[File], decisions: list[str]) -> dict[str, str]:
    """Content → the side that it stands on; nothing of a content that is on neither. Fails when it is on both."""
    sides: dict[str, str] = {}
    for file, decision in zip(files, decisions, strict=True):
        if decision != "rejected":
            assert sides.setdefault(file.content, decision) == decision
    return sides


@given(
    copied=st.sets(st.sampled_from(sorted(NEAR)), max_size=40),
    altered_too=st.sets(st.sampled_from(sorted(NEAR)), max_size=40),
    fraction=FRACTIONS,
    allow=st.booleans(),
    first=st.booleans(),
)
def test_adding_copies_and_near_copies_takes_no_content_to_the_other_side(
    copied: set[str], altered_too: set[str], fraction: float, allow: bool, first: bool
) -> None:
    folder = "a/" if first else "z/"
    more = {folder + path: NEAR[path] for path in copied}
    near = {text: altered_at(text, 39) for text in NEAR.values()}
    more |= {f"{folder}near/{path}": near[NEAR[path]] for path in altered_too}
    base = [judged(path, text) for path, text in sorted((BASE | NEAR).items())]
    grown = [judged(path, text) for path, text in sorted((BASE | NEAR | more).items())]
    before = sides_of_contents(base, run(base, fraction, allow).decisions)
    after = sides_of_contents(grown, run(grown, fraction, allow).decisions)
    assert {content for content in before if after.get(content, before[content]) != before[content]} == set()
    held_out = {content for content, side in before.items() if side == "holdout"}
    lost = held_out - after.keys()
    assert all(after[near[content]] == "holdout" for content in lost)


@given(low=SOME, fraction=FRACTIONS)
def test_files_of_low_quality_go_and_move_no_other_file(low: set[str], fraction: float) -> None:
    files = [judged(path, BASE[path]) for path in sorted(BASE)]
    seen = {hashlib.sha256(BASE[path].encode()).digest(): "loss 9.000 above 3" for path in low}
    settled = run(files, fraction, low_quality=seen)
    before = split_texts(BASE, fraction)
    assert dict(zip(sorted(BASE), settled.decisions, strict=True)) == {
        path: "rejected" if path in low else decision for path, decision in before.items()
    }
    assert {file.path for file, reason in zip(files, settled.reasons, strict=True) if reason == "LowQuality"} == low
