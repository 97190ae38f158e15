"""The held-out split: a share, never the same content on both sides."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.scan.dataset.splitting import File, judged, run, split

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
