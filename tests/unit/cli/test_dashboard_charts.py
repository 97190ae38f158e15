"""The loss chart: where points and numbers stand."""

import pytest
from codetune_api.finetunestatus import LossPoint
from codetune_cli.dashboard.charts import HEIGHT, WIDTH, Chart, draw


def _draw(*points: tuple[int, float, float | None], best: int | None = None) -> Chart:
    chart = draw([LossPoint(step=step, loss=loss, holdout_loss=held_out) for step, loss, held_out in points], best)
    assert chart is not None
    return chart


def _places(polyline: str) -> list[tuple[float, float]]:
    pairs = [point.split(",") for point in polyline.split()]
    return [(float(x), float(y)) for x, y in pairs]


def test_a_run_without_points_has_no_chart() -> None:
    assert draw([]) is None


def test_steps_run_to_the_right_and_a_lower_loss_stands_lower() -> None:
    places = _places(_draw((10, 3.0, None), (20, 2.0, None), (30, 1.0, None)).training)
    assert [x for x, _ in places] == sorted(x for x, _ in places)
    assert [y for _, y in places] == sorted(y for _, y in places)
    assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in places)


def test_held_out_loss_is_drawn_where_it_was_measured() -> None:
    chart = _draw((0, 3.0, 3.0), (10, 2.0, None), (20, 1.0, 1.0))
    training, held_out = _places(chart.training), _places(chart.held_out_line)
    assert held_out == [training[0], training[2]]
    assert [dot.text for dot in chart.held_out] == ["step 0: 3 held out", "step 20: 1 held out"]


def test_the_best_checkpoint_stands_at_its_step() -> None:
    chart = _draw((0, 3.0, None), (10, 2.0, None), (20, 1.0, None), best=10)
    assert chart.best == pytest.approx(_places(chart.training)[1][0], abs=0.05)
    assert _draw((0, 3.0, None), (10, 2.0, None), best=11).best is None


AXES: dict[str, tuple[list[str], list[float]]] = {
    "whole numbers": (["1", "2", "3", "4", "5"], [1.0, 5.0]),
    "between round numbers": (["1", "1.5", "2", "2.5", "3"], [1.21, 2.72]),
    "a narrow band": (["2.47", "2.472", "2.474", "2.476", "2.478", "2.48"], [2.471, 2.479]),
    "one value alone": (["2", "2.2"], [2.0, 2.0]),
    "near nothing": (["0", "0.0001", "0.0002", "0.0003", "0.0004", "0.0005"], [0.0, 0.0005]),
    "nothing": (["0", "1e-07"], [0.0, 0.0]),
    "huge": (["0", "5000", "10000", "15000", "20000"], [3.0, 20_000.0]),
}


@pytest.mark.parametrize("row", AXES.values(), ids=AXES.keys())
def test_the_axis_of_losses_has_round_numbers_around_all_points(row: tuple[list[str], list[float]]) -> None:
    expected, losses = row
    chart = _draw(*((step, loss, None) for step, loss in enumerate(losses)))
    assert [tick.text for tick in chart.losses] == expected
    bottom, top = chart.losses[0].at, chart.losses[-1].at
    assert all(top - 0.05 <= y <= bottom + 0.05 for _, y in _places(chart.training))


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        pytest.param(0, ["0"], id="only the base"),
        pytest.param(1, ["0", "1"], id="one step"),
        pytest.param(7, ["0", "2", "4", "6"], id="few"),
        pytest.param(600, ["0", "200", "400", "600"], id="many"),
        pytest.param(123_456, ["0", "50000", "100000"], id="very many"),
    ],
)
def test_the_axis_of_steps_has_round_numbers(last: int, expected: list[str]) -> None:
    assert [tick.text for tick in _draw((last, 1.0, None)).steps] == expected
