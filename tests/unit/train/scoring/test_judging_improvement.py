"""Whether a difference is more than chance, and the sentence that says so."""

import random

import pytest
from codetune_trainer.train.scoring.answering import Mark
from codetune_trainer.train.scoring.judging import Scored, compare

TOKENS = 200


def _scored(losses: list[float], hits: list[int], middles: list[int] | None = None) -> Scored:
    """A model with so many nats per token in each file, and so many of four lines right in each."""
    return Scored(
        loss=sum(losses) / len(losses),
        files=[(loss * TOKENS, TOKENS) for loss in losses],
        lines=[Mark(f"{file}.py", place < count, 0.5) for file, count in enumerate(hits) for place in range(4)],
        middles=[
            Mark(f"{file}.py", place < count, 0.25) for file, count in enumerate(middles or []) for place in range(2)
        ],
    )


BASE = [2.0, 1.5, 3.0, 2.5, 1.8, 2.2, 1.9, 2.7]
NOISE = [0.3, -0.4, 0.2, -0.1, 0.35, -0.3, 0.1, -0.2]


@pytest.mark.parametrize(
    ("verdict", "said", "tuned"),
    [
        pytest.param("Better", "more than chance", [loss * 0.9 for loss in BASE], id="every file is better"),
        pytest.param("Worse", "more than chance", [loss * 1.1 for loss in BASE], id="every file is worse"),
        pytest.param(
            "Unclear", "could be chance", [a + b for a, b in zip(BASE, NOISE, strict=True)], id="some of each"
        ),
        pytest.param("Unclear", "could be chance", [BASE[0] * 0.2, *BASE[1:]], id="one file alone"),
    ],
)
def test_a_difference_is_called_more_than_chance_only_when_the_files_agree(
    verdict: str, said: str, tuned: list[float]
) -> None:
    found = compare(_scored(BASE, [1] * 8), _scored(tuned, [1] * 8))
    assert found.verdict == verdict
    assert said in found.message.split(";")[1]
    assert found.improvement_interval is not None
    assert found.improvement_interval.low <= found.improvement <= found.improvement_interval.high


def test_the_interval_is_the_same_each_time_and_narrows_with_more_files() -> None:
    chance = random.Random(5)
    losses = [chance.uniform(1, 3) for _ in range(160)]
    tuned = [loss * chance.uniform(0.7, 1.1) for loss in losses]
    widths = []
    for count in (10, 40, 160):
        pair = _scored(losses[:count], [0] * count), _scored(tuned[:count], [0] * count)
        found = compare(*pair).improvement_interval
        assert found == compare(*pair).improvement_interval
        assert found is not None
        widths.append(found.high - found.low)
    assert widths[0] > 1.3 * widths[1] > 1.5 * widths[2]


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    # Files of a population in which the tuned model is 10 % better on average.
    covered = 0
    for seed in range(60):
        chance = random.Random(seed)
        base = [chance.uniform(1, 3) for _ in range(30)]
        tuned = [loss * (0.9 + chance.gauss(0, 0.1)) for loss in base]
        interval = compare(_scored(base, [0] * 30), _scored(tuned, [0] * 30)).improvement_interval
        assert interval is not None
        covered += interval.low <= 0.1 <= interval.high
    assert 51 <= covered <= 60


def test_too_few_files_are_said_to_be_too_few() -> None:
    found = compare(_scored([2.0, 2.0], [1, 1]), _scored([1.0, 1.0], [4, 4]))
    assert found.improvement_interval is None
    assert found.verdict == "Unclear"
    assert "50.0% better; too few files to tell chance apart" in found.message
    assert "next line exact 2/8 → 8/8 (too few files to tell chance apart)" in found.message


def test_the_sentence_says_what_was_measured_and_on_how_much() -> None:
    found = compare(
        _scored(BASE, [1] * 8, [0] * 8),
        _scored([loss * 0.75 for loss in BASE], [2] * 8, [0, 0, 1] * 2 + [0, 0]),
        selection_files=9,
    )
    assert found.message == (
        "Held-out loss fell from 2.200 to 1.650 (25.0% better; 95% interval 25.0% to 25.0%, more than chance) "
        "on 8 files, 1600 tokens; next line exact 8/32 → 16/32 (more than chance); "
        "fill-in-the-middle exact 0/16 → 2/16 (could be chance)."
    )
    assert (found.lines, found.infills, found.files, found.tokens) == (32, 16, 8, 1600)
    assert found.selection_files == 9
    assert (found.base.exact_match, found.tuned.exact_match) == (0.25, 0.5)
    assert (found.base.edit_similarity, found.tuned.infill_edit_similarity) == (0.5, 0.25)


def test_a_loss_that_rose_is_called_worse_with_its_interval_the_right_way_round() -> None:
    found = compare(_scored(BASE, [1] * 8), _scored([loss * 1.2 for loss in BASE], [0] * 8))
    assert "rose from 2.200 to 2.640 (20.0% worse; 95% interval 20.0% to 20.0%, more than chance)" in found.message
    assert "next line exact 8/32 → 0/32 (more than chance)" in found.message


@pytest.mark.parametrize(("expected", "others"), [(True, 0), (False, 12)], ids=["by these files", "by others"])
def test_the_sentence_says_so_where_the_files_that_judge_chose_the_checkpoint(expected: bool, others: int) -> None:
    found = compare(_scored(BASE, [1] * 8), _scored(BASE, [1] * 8), selection_files=others)
    assert found.message.endswith(" The same files chose the checkpoint.") is expected


def test_nothing_is_said_of_chance_where_nothing_changed() -> None:
    found = compare(_scored(BASE, [1] * 8), _scored(BASE, [1] * 8), selection_files=9)
    assert found.message == "Held-out loss stayed at 2.200 on 8 files, 1600 tokens; next line exact 8/32 → 8/32."
    assert found.base.infill_exact_match is None
