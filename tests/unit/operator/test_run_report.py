"""What a run says, folded: each kind of line, lines that come again, a run that goes back, the chart of a long run."""

from typing import Any

import pytest
from codetune_api.finetune import CheckpointStatus, DatasetStatus, FineTuneStatus, LossPoint
from codetune_api.protocol import (
    CheckpointEvent,
    DatasetEvent,
    Event,
    ProgressEvent,
    ResultEvent,
    ResumedEvent,
    StageEvent,
    parse,
    render,
)
from codetune_operator.runs.report import RunReport, fold, from_status, sort_key
from hypothesis import given
from hypothesis import strategies as st

DIGEST = "sha256:" + "1" * 64


def at(second: int, fraction: str = "") -> str:
    return f"2026-11-23T10:{second // 60:02d}:{second % 60:02d}{fraction}Z"


def progress(step: int, total: int = 100, **more: Any) -> ProgressEvent:
    return ProgressEvent(step=step, total=total, **{"loss": 3.0 - step / total, **more})


def checkpoint(step: int, holdout: float | None = None, removed: tuple[str, ...] = (), **more: Any) -> CheckpointEvent:
    entry = CheckpointStatus(
        name=f"step-{step:06d}", step=step, holdout_loss=holdout, uri=f"pvc://c/{step}", digest=DIGEST, **more
    )
    return CheckpointEvent(checkpoint=entry, removed=list(removed))


def tell(*events: Event, report: RunReport | None = None, start: int = 0) -> RunReport:
    report = report or RunReport()
    for second, event in enumerate(events, start):
        report = fold(report, event, at(second))
    return report


RUN: tuple[Event, ...] = (
    StageEvent(stage="LoadingModel"),
    DatasetEvent(dataset=DatasetStatus(revision=DIGEST, files=3, tokens=900)),
    StageEvent(stage="Training"),
    progress(10, tokens=1000, lr=0.1, tokens_per_second=50.0, remaining=90.0),
    progress(20),
    checkpoint(20, 2.5),
    progress(40),
    checkpoint(40, 2.2),
    progress(60),
    checkpoint(60, 2.4, ("step-000020",)),
)


def test_a_whole_run_is_told() -> None:
    report = tell(*RUN)

    assert report.stage == "Training"
    assert report.dataset == DatasetStatus(revision=DIGEST, files=3, tokens=900)
    assert report.progress is not None
    assert (report.progress.step, report.progress.total_steps, report.progress.percent) == (60, 100, 60.0)
    assert report.progress.holdout_loss == 2.4
    assert report.progress.learning_rate == 0.1
    assert [entry.name for entry in report.checkpoints] == ["step-000040", "step-000060"]
    assert (report.best_checkpoint, report.latest_checkpoint) == ("step-000040", "step-000060")


def test_without_held_out_losses_the_best_checkpoint_is_the_latest() -> None:
    report = tell(checkpoint(20), checkpoint(40))

    assert (report.best_checkpoint, report.latest_checkpoint) == ("step-000040", "step-000040")


def test_a_run_without_checkpoints_has_no_best() -> None:
    assert (RunReport().best_checkpoint, RunReport().latest_checkpoint) == (None, None)


@given(cut=st.integers(0, len(RUN)), back=st.integers(0, len(RUN)))
def test_reading_a_part_of_the_log_again_changes_nothing(cut: int, back: int) -> None:
    once = tell(*RUN)
    before = tell(*RUN[:cut])
    begin = max(0, cut - back)

    assert tell(*RUN[begin:], report=before, start=begin) == once


def test_a_resume_is_counted_once_however_often_its_line_comes() -> None:
    report = RunReport()
    for _ in range(3):
        report = fold(report, ResumedEvent(checkpoint="step-000020", step=20), at(5))

    assert report.resumed == 1


def test_a_resume_takes_back_what_is_repeated() -> None:
    report = tell(ResumedEvent(checkpoint="step-000040", step=40), report=tell(*RUN), start=60)

    assert report.progress is not None
    assert (report.progress.step, report.progress.percent) == (40, 40.0)
    assert [entry.step for entry in report.checkpoints] == [40]
    assert [point.step for point in report.loss_history] == [10, 20, 40]
    assert report.resumed == 1


def test_going_back_is_said_with_what_is_repeated_and_why() -> None:
    resumed = ResumedEvent(checkpoint="step-000040", step=40, message="step-000060 was removed: it was damaged")
    report = tell(*[resumed] * 2, report=tell(*RUN), start=60)

    assert report.progress is not None
    assert report.progress.message == (
        "The run went on from step-000040; steps 41 to 60 are repeated. step-000060 was removed: it was damaged"
    )
    assert fold(report, resumed, at(61)) == report


def test_going_on_where_the_run_was_says_so_without_repeating_anything() -> None:
    report = tell(ResumedEvent(checkpoint="step-000060", step=60), report=tell(*RUN), start=60)

    assert report.progress is not None
    assert report.progress.message == "The run went on from step-000060."


def test_starting_over_is_said_too() -> None:
    report = tell(progress(5), report=tell(*RUN), start=60)

    assert report.progress is not None
    assert report.progress.step == 5
    assert report.progress.message.startswith("The run began anew")
    assert "steps 6 to 60 are repeated" in report.progress.message


def test_an_attempt_without_a_whole_checkpoint_says_which_were_damaged() -> None:
    resumed = ResumedEvent(checkpoint="", step=0, message="step-000060 was removed: it has no readable manifest")
    report = tell(resumed, report=tell(*RUN), start=60)

    assert report.progress is not None
    assert report.progress.message == (
        "The run began anew; steps 1 to 60 are repeated. step-000060 was removed: it has no readable manifest"
    )
    assert (report.resumed, report.checkpoints) == (1, ())


def test_going_back_within_an_attempt_is_no_restart() -> None:
    line = render(ResumedEvent(checkpoint="step-000040", step=40, message="nan", restarted=False), "n" * 16)
    event = parse(line, "n" * 16)
    assert event is not None
    report = tell(event, report=tell(*RUN), start=60)

    assert report.progress is not None
    assert (report.progress.step, report.resumed) == (40, 0)
    assert report.progress.message == "The run went on from step-000040; steps 41 to 60 are repeated. nan"


@given(st.lists(st.integers(0, 100), min_size=1, max_size=20))
def test_percent_goes_back_only_with_a_word_about_it(steps: list[int]) -> None:
    report = RunReport()
    for second, step in enumerate(steps):
        before = report.progress
        report = fold(report, progress(step), at(second))
        assert report.progress is not None
        if before is not None and report.progress.percent < before.percent:
            assert report.progress.message.startswith("The run began anew")
            assert f"to {before.step} are repeated" in report.progress.message


def test_a_run_that_starts_over_takes_its_chart_back() -> None:
    report = tell(progress(5), report=tell(*RUN), start=60)

    assert report.progress is not None
    assert report.progress.step == 5
    assert [point.step for point in report.loss_history] == [5]
    assert report.checkpoints == ()


def test_a_line_from_before_the_last_one_is_left_out() -> None:
    report = tell(*RUN)

    assert fold(report, StageEvent(stage="Old"), at(0)) == report


def test_the_result_ends_the_estimate() -> None:
    report = tell(progress(10, remaining=90.0), ResultEvent())

    assert report.result == ResultEvent()
    assert report.remaining is None


def test_what_a_status_tells_is_where_a_restarted_operator_goes_on() -> None:
    before = tell(*RUN)
    status = FineTuneStatus(
        progress=before.progress,
        checkpoints=list(before.checkpoints),
        loss_history=list(before.loss_history),
        dataset=before.dataset,
        restarts=0,
    )

    restored = from_status(FineTuneStatus.from_wire(status.to_wire()))
    rest = (progress(80), checkpoint(80, 2.1))

    assert tell(*RUN[-2:], *rest, report=restored, start=len(RUN) - 2) == tell(*RUN, *rest)


def test_a_status_without_a_run_tells_nothing() -> None:
    assert from_status(FineTuneStatus()) == RunReport()


@given(total=st.integers(1, 5000), every=st.integers(1, 50))
def test_the_chart_spans_the_whole_run_in_at_most_a_hundred_points(total: int, every: int) -> None:
    report = RunReport()
    steps = [*range(1, total, max(every, total // 300)), total]
    for second, step in enumerate(steps):
        report = fold(report, progress(step, total), at(second))

    shown = [point.step for point in report.loss_history]
    assert len(shown) <= 100
    assert shown == sorted(set(shown))
    assert shown[-1] == total
    assert shown[0] <= max(steps[0], total // 100 + every)


def test_held_out_losses_stay_in_the_chart_of_a_long_run() -> None:
    report = RunReport()
    second = 0
    for step in range(1, 5001, 10):
        report = fold(report, progress(step, 5000), at(second))
        second += 1
        if step % 500 == 1:
            report = fold(report, checkpoint(step, 2.0, loss=2.5), at(second))
            second += 1

    assert len([point for point in report.loss_history if point.holdout_loss is not None]) == 10


def test_the_two_losses_of_a_step_are_one_point() -> None:
    report = tell(progress(20), checkpoint(20, 2.0, loss=2.8), progress(20))

    assert report.loss_history == (LossPoint(step=20, loss=2.8, holdout_loss=2.0),)


ORDER = [
    pytest.param("2026-11-23T10:00:00Z", "2026-11-23T10:00:00.1Z", id="without and with a fraction"),
    pytest.param("2026-11-23T10:00:00.1Z", "2026-11-23T10:00:00.11Z", id="fractions of different length"),
    pytest.param("2026-11-23T10:00:00.999999999Z", "2026-11-23T10:00:01Z", id="across a second"),
    pytest.param("2026-11-23T12:00:00+02:00", "2026-11-23T10:00:01Z", id="a node's zone, then UTC"),
    pytest.param("2026-11-23T10:00:00Z", "2026-11-23T06:30:00.5-03:30", id="UTC, then a node's zone"),
    pytest.param("2026-10-25T02:59:59.9+02:00", "2026-10-25T02:00:00+01:00", id="when the clocks go back"),
    pytest.param("2026-11-24T00:30:00+02:00", "2026-11-23T23:00:00Z", id="another day in the zone"),
]
SAME = [
    pytest.param("2026-11-23T10:00:00.1Z", "2026-11-23T10:00:00.100000000Z", id="zeros at the end"),
    pytest.param("2026-11-23T10:00:00Z", "2026-11-23T10:00:00.000000000Z", id="no fraction"),
    pytest.param("2026-11-23T10:00:00.123456789Z", "2026-11-23T12:00:00.123456789+02:00", id="another zone"),
]


@pytest.mark.parametrize(("earlier", "later"), ORDER)
def test_times_are_compared_whatever_their_fraction_and_zone(earlier: str, later: str) -> None:
    assert sort_key(earlier) < sort_key(later)


@pytest.mark.parametrize(("one", "other"), SAME)
def test_a_moment_is_the_same_however_it_is_written(one: str, other: str) -> None:
    assert sort_key(one) == sort_key(other)


def test_lines_of_a_node_with_a_zone_are_taken_in_by_their_moment() -> None:
    before = fold(RunReport(), progress(10), "2026-11-23T10:00:00Z")
    after = fold(before, progress(20), "2026-11-23T06:00:01.25-04:00")

    assert fold(before, progress(5), "2026-11-23T11:59:59+02:00") == before
    assert after.progress is not None
    assert (after.progress.step, after.progress.updated_at) == (20, "2026-11-23T10:00:01.250000000Z")
    assert after.read_to == after.progress.updated_at
