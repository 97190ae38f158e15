"""How long the evaluation at the end will take, told by the one of the base model before the first step."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest
from codetune_trainer.train import concluding
from codetune_trainer.train.running import Run
from codetune_trainer.train.scoring.evaluating import HeldOut


class Played:
    """A model whose answers take known times on a clock of their own."""

    def __init__(self, seconds_off: float, seconds_on: float) -> None:
        self.now = 0.0
        self.asked: list[int] = []
        self._seconds = {True: seconds_off, False: seconds_on}
        self._off = False

    @contextmanager
    def disable_adapter(self) -> Iterator[None]:
        self._off = True
        yield
        self._off = False

    def answer(self, _model: Any, _encoder: Any, questions: list[str], *_: Any) -> list[Any]:
        self.asked.append(len(questions))
        self.now += self._seconds[self._off]
        return []


@pytest.mark.parametrize(
    ("expected", "seconds_off", "seconds_on"),
    [
        pytest.param(1.5, 2.0, 3.0, id="half as long again"),
        pytest.param(1.0, 2.0, 1.9, id="never faster than without"),
        pytest.param(1.0, 0.0, 0.0, id="too fast to tell"),
    ],
)
def test_answers_with_an_adapter_take_so_much_longer(
    monkeypatch: pytest.MonkeyPatch, expected: float, seconds_off: float, seconds_on: float
) -> None:
    played = Played(seconds_off, seconds_on)
    monkeypatch.setattr(concluding, "answer_lines", played.answer)
    monkeypatch.setattr(concluding, "time", SimpleNamespace(monotonic=lambda: played.now))
    run = cast(Run, SimpleNamespace(model=played, encoder=None, breathe=None, group=None))
    held_out = cast(HeldOut, SimpleNamespace(lines=["question"] * 20))
    assert concluding._measure_slowdown(run, held_out) == expected
    assert played.asked == [4, 4]
