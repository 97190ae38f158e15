"""Learning rate, remaining time, the chart, and what the machine offers."""

from pathlib import Path

import pytest
import torch
from codetune_api.finetune import Parameters
from codetune_trainer.train import machine
from codetune_trainer.train.charting import Point, add_point, build_chart
from codetune_trainer.train.machine import count_threads
from codetune_trainer.train.pacing import Pace, Stopped, StopSignal, Throttle, count_milestones, learning_rate


def _parameters(scheduler: str, *, steps: int = 100, warmup: int = 10) -> Parameters:
    return Parameters.model_validate(
        {
            "preset": "Smaller", "rank": 4, "alpha": 8, "dropout": 0, "targetModules": [], "trainEmbeddings": False,
            "maxSteps": steps, "epochs": 1, "sequenceLength": 64, "batchTokens": 64, "learningRate": 1.0,
            "scheduler": scheduler, "warmupSteps": warmup, "weightDecay": 0, "fimRate": 0, "precision": "Float32",
            "gradientCheckpointing": False, "seed": 0, "everySteps": 10,
        }
    )  # fmt: skip


@pytest.mark.parametrize(
    ("scheduler", "step", "expected"),
    [
        pytest.param("Cosine", 1, 0.1, id="warm-up begins above zero"),
        pytest.param("Linear", 10, 1.0, id="and ends at the peak"),
        pytest.param("Constant", 100, 1.0, id="constant stays"),
        pytest.param("Linear", 11, 1.0, id="linear begins at the peak"),
        pytest.param("Linear", 100, 1 / 90, id="and ends above zero"),
        pytest.param("Cosine", 11, 1.0, id="cosine begins at the peak"),
        pytest.param("Cosine", 56, 0.55, id="is half way down in the middle"),
        pytest.param("Cosine", 101, 0.1, id="and ends at a tenth"),
    ],
)
def test_the_rate_of_a_step(scheduler: str, step: int, expected: float) -> None:
    assert learning_rate(step, _parameters(scheduler)) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("scheduler", ["Constant", "Linear", "Cosine"])
def test_every_step_has_a_rate_above_zero(scheduler: str) -> None:
    for steps, warmup in ((1, 0), (1, 1), (7, 3)):
        parameters = _parameters(scheduler, steps=steps, warmup=warmup)
        assert all(0 < learning_rate(step, parameters) <= 1 for step in range(1, steps + 1))


@pytest.mark.parametrize(
    ("expected", "done", "total", "every"),
    [
        pytest.param(10, 0, 100, 10, id="at the beginning"),
        pytest.param(9, 10, 100, 10, id="after one"),
        pytest.param(9, 19, 100, 10, id="just before the next one"),
        pytest.param(4, 0, 100, 30, id="the last step has one too"),
        pytest.param(3, 59, 100, 30, id="two in turn and the last"),
        pytest.param(1, 99, 100, 30, id="only the last"),
        pytest.param(0, 100, 100, 30, id="at the end"),
        pytest.param(0, 40, 40, 30, id="stopped early"),
        pytest.param(1, 0, 5, 5, id="one in all"),
    ],
)
def test_how_many_checkpoints_are_to_come(expected: int, done: int, total: int, every: int) -> None:
    assert count_milestones(done, total, every) == expected
    steps = range(done + 1, total + 1)
    assert expected == sum(step % every == 0 or step == total for step in steps)


def test_remaining_time_is_unknown_before_the_first_step() -> None:
    pace = Pace()
    pace.note_checkpoint(3)
    assert pace.remaining(5, 1) is None


def test_remaining_time_counts_steps_checkpoints_and_the_end() -> None:
    pace = Pace()
    pace.note_step(2)
    pace.note_checkpoint(10)
    pace.note_end(5)
    assert pace.remaining(7, 2) == 7 * 2 + 2 * 10 + 5
    assert pace.remaining(0, 0) == 5


class Clock:
    """Seconds that a test lets pass."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_what_comes_between_two_steps_counts_to_them_but_checkpoints_do_not() -> None:
    clock = Clock()
    pace = Pace(clock)
    for _ in range(30):
        clock.now += 3.0  # a second of it between two steps: the next epoch is laid out
        pace.note_step(2)
        clock.now += 50.0
        pace.note_checkpoint(50)
    assert pace.remaining(10, 0) == pytest.approx(30.0)
    assert pace.remaining(10, 2) == pytest.approx(130.0)


def test_the_first_step_is_forgotten_once_there_is_another() -> None:
    pace = Pace()
    pace.note_step(60)
    assert pace.remaining(10, 0) == 600
    pace.note_step(2)
    assert pace.remaining(10, 0) == 20


def test_the_time_that_is_left_falls_while_the_end_goes_on() -> None:
    clock = Clock()
    pace = Pace(clock)
    pace.note_end(30)
    pace.begin_end()
    left = []
    for clock.now in (0.0, 10.0, 25.0, 40.0):
        left.append(pace.remaining(0, 0))
    assert left == [30, 20, 5, 0]


def test_remaining_time_follows_a_change_of_speed() -> None:
    pace = Pace()
    for seconds in [1.0] * 20 + [3.0] * 20:
        pace.note_step(seconds)
    assert pace.remaining(10, 0) == pytest.approx(30, rel=0.02)


def test_a_stop_signal_that_was_not_given_lets_the_run_go_on() -> None:
    stop = StopSignal()
    stop.check()
    stop.is_set = True
    with pytest.raises(Stopped):
        stop.check()


def test_a_throttle_is_due_once_its_time_has_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    throttle = Throttle(2.0)
    seen = []
    for now[0] in (101.0, 102.0, 103.0, 104.5):
        seen.append(throttle.is_due())
        if seen[-1]:
            throttle.restart()
    assert seen == [False, True, False, True]


@pytest.mark.parametrize("total", [6, 100, 1000, 2345])
def test_the_chart_spans_the_run_with_at_most_a_hundred_points(total: int) -> None:
    points: tuple[Point, ...] = ()
    for step in range(1, total + 1):
        points = add_point(points, (step, float(step), None), total)
        if step % max(1, total // 7) == 0:
            points = add_point(points, (step, float(step), 0.5), total)
    chart = build_chart(points)
    assert len(chart) <= 100
    assert chart[0].step <= max(1, total // 50)
    assert chart[-1].step == total or chart[-1].holdout_loss is not None
    assert [point.step for point in chart if point.holdout_loss] == [
        step for step in range(1, total + 1) if step % max(1, total // 7) == 0
    ]


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        pytest.param("1", 1, id="fewer than there are"),
        pytest.param("4096", None, id="more than there are"),
        pytest.param("0", None, id="none"),
        pytest.param("", None, id="nothing"),
    ],
)
def test_threads_are_at_most_as_many_as_the_pod_was_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, told: str, expected: int | None
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    free = count_threads(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", told)
    assert count_threads(tmp_path) == (expected or free)


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        pytest.param({"avx512_bf16": True}, True, id="AVX-512 BF16"),
        pytest.param({"amx_bf16": True}, True, id="AMX"),
        pytest.param({"bf16": True}, True, id="ARM"),
        pytest.param({"avx2": True, "avx512_f": True}, False, id="only emulated"),
        pytest.param({}, False, id="unknown"),
    ],
)
def test_bf16_is_used_only_where_the_cpu_has_it(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool], expected: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert machine.has_fast_bf16(torch.device("cpu")) is expected


@pytest.mark.parametrize(("expected", "emulates"), [(True, False), (False, True)], ids=["itself", "only emulated"])
def test_bf16_is_used_only_where_the_gpu_computes_in_it_itself(
    monkeypatch: pytest.MonkeyPatch, expected: bool, emulates: bool
) -> None:
    def is_supported(including_emulation: bool = True) -> bool:
        return including_emulation if emulates else True

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", is_supported)
    assert machine.has_fast_bf16(torch.device("cuda")) is expected


def test_free_memory_of_a_gpu_is_what_its_driver_has_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (device.index, 80 << 30))
    assert machine.free_memory(torch.device("cuda", 7)) == 7
