"""The held-out split: a share, stable, never the same content on both sides."""

import hashlib
from typing import Literal

import pytest
from codetune_api.project import Holdout
from codetune_trainer.scan.deciding import Decided, decide
from codetune_trainer.scan.records import Judged
from hypothesis import given
from hypothesis import strategies as st


def judged(
    path: str,
    content: str = "",
    *,
    held_out: bool = False,
    wanted: bool = False,
    reason: Literal["Empty", ""] = "",
) -> Judged:
    digest = b"" if reason else hashlib.sha256((content or path).encode()).digest()
    return Judged(
        path,
        "s",
        "Python",
        1,
        1,
        reason,
        "",
        digest=digest,
        held_out=held_out,
        wanted=wanted,
    )


def split(files: list[Judged], fraction: float, allow: bool = False) -> dict[str, str]:
    return {entry.file.path: entry.decision for entry in run(files, fraction, allow)}


def run(files: list[Judged], fraction: float, allow: bool = False) -> list[Decided]:
    return decide(files, holdout=Holdout(fraction=fraction), allow_duplicates=allow)


CONTENTS = st.lists(st.tuples(st.text("abcd", min_size=1, max_size=3), st.booleans()), max_size=30)
FRACTIONS = st.sampled_from([0.0, 0.1, 0.3, 0.5])


def numbered(contents: list[tuple[str, bool]]) -> list[Judged]:
    return [judged(f"s/{number:03}", content, held_out=must) for number, (content, must) in enumerate(contents)]


@given(CONTENTS, FRACTIONS, st.booleans())
def test_no_content_is_ever_on_both_sides(contents: list[tuple[str, bool]], fraction: float, allow: bool) -> None:
    sides: dict[str, set[bytes]] = {"train": set(), "holdout": set(), "rejected": set()}
    for entry in run(numbered(contents), fraction, allow):
        sides[entry.decision].add(entry.file.digest)
    assert not sides["train"] & sides["holdout"]


@given(CONTENTS, FRACTIONS, st.booleans())
def test_what_holdout_paths_name_is_never_trained_on(
    contents: list[tuple[str, bool]], fraction: float, allow: bool
) -> None:
    must = {content for content, named in contents if named}
    for entry, (content, _) in zip(run(numbered(contents), fraction, allow), contents, strict=True):
        assert entry.decision != "train" or content not in must


@given(CONTENTS, FRACTIONS)
def test_a_fraction_leaves_both_sides_something_where_there_are_two_contents(
    contents: list[tuple[str, bool]], fraction: float
) -> None:
    free = [(content, False) for content, _ in contents]
    decisions = {entry.decision for entry in run(numbered(free), fraction)}
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
def test_small_cases(expected: dict[str, str], files: list[Judged], fraction: float) -> None:
    assert split(files, fraction) == expected


def test_at_least_one_is_held_out_of_two() -> None:
    for number in range(50):
        decisions = split([judged(f"s/a{number}"), judged(f"s/b{number}")], 0.01)
        assert sorted(decisions.values()) == ["holdout", "train"]


def test_the_first_copy_in_path_order_is_the_original() -> None:
    entries = run([judged("s/a", "x"), judged("s/b", "x"), judged("s/c", "x", wanted=True)], 0.0)
    assert [(entry.decision, entry.file.reason, entry.file.detail) for entry in entries] == [
        ("train", "", ""),
        ("rejected", "Duplicate", "of s/a"),
        ("train", "", "files.include has it, against Duplicate: of s/a"),
    ]


@pytest.mark.parametrize("number", range(20))
def test_copies_that_are_allowed_stand_on_one_side(number: int) -> None:
    copies = [judged(f"s/{name}", f"content {number}") for name in "abc"]
    others = [judged(f"s/z{index}") for index in range(20)]
    decisions = split([*copies, *others], 0.5, allow=True)
    assert len({decisions[copy.path] for copy in copies}) == 1
