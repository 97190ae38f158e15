"""The held-out split is stable: what is done to some files moves no other one.

Skipped on purpose: lists so short that one file is held out only because something must be.
"""

import hashlib

from hypothesis import given
from hypothesis import strategies as st
from unit.scan.dataset.splitting import File, altered_at, code, judged, run, split

BASE = {f"s/f{number:03}.py": f"content {number}" for number in range(120)}
"""Enough files that both sides have some, whatever is done to some of them."""
FRACTIONS = st.sampled_from([0.1, 0.3, 0.5])
SOME = st.sets(st.sampled_from(sorted(BASE)), max_size=40)


def split_texts(texts: dict[str, str], fraction: float, *, allow: bool = False) -> dict[str, str]:
    """Path → decision."""
    return split([judged(path, texts[path]) for path in sorted(texts)], fraction, allow)


@given(st.sets(st.text("abcdefgh", min_size=1, max_size=6), min_size=120, max_size=200), st.data())
def test_adding_files_moves_no_other_file(names: set[str], data: st.DataObject) -> None:
    # 120 files: with fewer, the one that is held out because something must be can change.
    more = data.draw(st.sets(st.text("ijkl", min_size=1, max_size=6), max_size=20))
    before = split([judged(name) for name in sorted(names)], 0.5)
    after = split([judged(name) for name in sorted(names | more)], 0.5)
    assert {name: after[name] for name in before} == before


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
