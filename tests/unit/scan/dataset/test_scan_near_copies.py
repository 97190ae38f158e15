"""Near copies: which of them go, and that those which stay stand on one side."""

import hashlib
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.scan.dataset.splitting import File, altered, altered_at, code, judged, run


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
