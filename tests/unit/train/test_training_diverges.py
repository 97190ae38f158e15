"""What a run does about losses and gradients that are no number: it skips steps, and goes back at a lower rate once."""

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from codetune_api.protocol import ParametersEvent, ResumedEvent, StageEvent
from codetune_trainer.errors import DivergedLoss
from codetune_trainer.train import fitting, recovery, run
from codetune_trainer.train.model import stepping
from codetune_trainer.train.pacing import StopSignal
from safetensors.torch import load_file

if TYPE_CHECKING:
    from unit.train.conftest import Store

NAN = math.nan
_LOOKS_OF_THREE_STEPS = 5
"""At the signal: two before the first step, one in each."""


def _diverge(
    monkeypatch: pytest.MonkeyPatch, *steps: int, stop: tuple[int, StopSignal] | None = None, most: int = 1
) -> None:
    """Let the n-th steps that are done have a loss that is no number; they count on over all attempts.

    SIGTERM comes with one of them, where that is asked for. After `most` such steps the run goes back.
    """
    real, done = stepping.accumulate, iter(range(1, 1000))
    monkeypatch.setattr(fitting, "MOST_SKIPS", most)

    def accumulate(*arguments: Any) -> float:
        loss, number = real(*arguments), next(done)
        if stop is not None and stop[0] == number:
            stop[1].is_set = True
        return NAN if number in steps else loss

    monkeypatch.setattr(fitting, "accumulate", accumulate)


def _parameters(events: list[Any]) -> Any:
    return [event.parameters for event in events if isinstance(event, ParametersEvent)][-1]


def test_a_loss_that_is_no_number_sends_the_run_back_with_half_the_learning_rate(
    store: "Store", monkeypatch: pytest.MonkeyPatch
) -> None:
    _diverge(monkeypatch, 4)
    events = store.train(store.config())
    (back,) = [event for event in events if isinstance(event, ResumedEvent)]
    assert (back.checkpoint, back.step, back.restarted) == ("step-000002", 2, False)
    assert "In step 4 the loss was nan" in back.message
    assert "0.005 instead of 0.01" in back.message
    assert store.result.steps == 6
    assert store.result.parameters.learning_rate == _parameters(events).learning_rate == 0.005
    assert any("diverged" in note for note in store.result.parameters.notes)


def test_a_single_step_without_a_number_is_skipped_and_told_once(
    store: "Store", monkeypatch: pytest.MonkeyPatch
) -> None:
    store.train(store.config("whole"))
    _diverge(monkeypatch, 4, 6, most=2)
    events = store.train(store.config())
    assert not [event for event in events if isinstance(event, ResumedEvent)]
    said = [event.message for event in events if isinstance(event, StageEvent) and "skipped" in event.message]
    assert len(said) == 1
    assert "In step 4 the loss was nan" in said[0]
    losses, whole = store.losses(), store.losses("whole")
    assert [step for step, loss in losses.items() if loss is None] == [4, 6]
    assert [losses[step] for step in (1, 2, 3)] == [whole[step] for step in (1, 2, 3)]
    assert math.isfinite(losses[5])
    assert store.result.steps == 6
    assert store.result.parameters.learning_rate == 0.01
    assert store.result.parameters.notes[-1].endswith("was no number: 2.")


def test_steps_that_were_skipped_before_a_stop_count_after_it(store: "Store", monkeypatch: pytest.MonkeyPatch) -> None:
    stop = StopSignal()
    _diverge(monkeypatch, 3, 4, stop=(3, stop), most=2)
    store.train(store.config(), stop)
    assert store.status == 143
    events = store.train(store.config())
    (back,) = [event for event in events if isinstance(event, ResumedEvent) and not event.restarted]
    assert (back.step, "skipped in a row: 2" in back.message) == (2, True)


def test_in_half_precision_the_hint_names_the_precision(store: "Store", monkeypatch: pytest.MonkeyPatch) -> None:
    _diverge(monkeypatch, 4, 5)
    monkeypatch.setattr("codetune_trainer.train.run._resolve", _resolve_half(run._resolve))
    with pytest.raises(DivergedLoss) as caught:
        store.train(store.config())
    assert "training.precision BFloat16 or Float32" in caught.value.hint


def _resolve_half(real: Callable[..., Any]) -> Callable[..., Any]:
    """No configuration asks a CPU for it."""
    return lambda *arguments: real(*arguments).model_copy(update={"precision": "Float16"})


def _poison(monkeypatch: pytest.MonkeyPatch, after: int, most: int) -> None:
    """Let the update of a step spoil the adapter, once: what it computes from then on is no number."""
    calls = itertools.count(1)

    def apply(model: Any, *arguments: Any) -> float:
        norm = stepping.apply_gradients(model, *arguments)
        if next(calls) == after:
            next(weight for weight in model.parameters() if weight.requires_grad).data.fill_(math.nan)
        return norm

    monkeypatch.setattr(fitting, "apply_gradients", apply)
    monkeypatch.setattr(fitting, "MOST_SKIPS", most)


@pytest.mark.parametrize(
    ("spoiled", "most", "expected"),
    [
        pytest.param(4, 2, 2, id="by the last step before a checkpoint"),
        pytest.param(3, 5, 2, id="by the step before that"),
        pytest.param(5, 5, 4, id="by the last step but one of the run"),
        pytest.param(2, 2, 0, id="by the last step before the only checkpoint"),
    ],
)
def test_without_held_out_files_it_goes_back_past_a_checkpoint_that_may_be_spoiled(
    store: "Store",
    code: Callable[[str, int], str],
    monkeypatch: pytest.MonkeyPatch,
    spoiled: int,
    most: int,
    expected: int,
) -> None:
    alone = store.add_dataset("alone", [code(name, 12) for name in ("add", "sum", "plus", "increase")])
    _poison(monkeypatch, spoiled, most)
    events = store.train(store.config(**alone))
    (back,) = [event for event in events if isinstance(event, ResumedEvent)]
    assert back.step == expected
    assert ("no loss shows that it is sound" in back.message) is (spoiled in (2, 4))
    assert store.result.steps == 6
    assert store.checkpoints()[-1] == "step-000006"
    for name in store.checkpoints():
        assert all(tensor.isfinite().all() for tensor in load_file(_adapter(store, name)).values())


def test_without_held_out_files_an_attempt_after_a_stop_goes_back_past_what_was_saved_then(
    store: "Store", code: Callable[[str, int], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = store.add_dataset("alone", [code(name, 12) for name in ("add", "sum", "plus", "increase")])
    _poison(monkeypatch, 3, 2)
    store.train(store.config(**alone), store.stop_after(_LOOKS_OF_THREE_STEPS))
    assert (store.status, store.checkpoints()[-1]) == (143, "step-000003")
    events = store.train(store.config(**alone))
    (back,) = [event for event in events if isinstance(event, ResumedEvent) and not event.restarted]
    assert back.step == 2
    assert "step-000003" in back.message
    assert store.result.steps == 6
    assert "step-000003" not in store.checkpoints()


def _adapter(store: "Store", name: str) -> Path:
    return store.root / "run" / "checkpoints" / name / "adapter_model.safetensors"


def test_without_a_checkpoint_it_goes_back_to_the_very_start(store: "Store", monkeypatch: pytest.MonkeyPatch) -> None:
    slower = store.config("slower", training={"learning_rate": 0.005}, lora=store.without_dropout().lora)
    store.train(slower)
    _diverge(monkeypatch, 2)
    events = store.train(store.without_dropout())
    (back,) = [event for event in events if isinstance(event, ResumedEvent)]
    assert (back.checkpoint, back.step) == ("", 0)
    assert store.result.steps == 6
    # The adapter is drawn anew, by the same seed but at another moment.
    assert store.losses()[1] == pytest.approx(store.losses("slower")[1], abs=1e-6)
    assert store.losses()[6] == pytest.approx(store.losses("slower")[6], abs=0.05)


@pytest.mark.parametrize("in_one_attempt", [True, False], ids=["in the same attempt", "in a later attempt"])
def test_a_second_time_ends_the_run_for_good_with_what_to_change(
    store: "Store", monkeypatch: pytest.MonkeyPatch, in_one_attempt: bool
) -> None:
    stop = StopSignal()
    _diverge(monkeypatch, *((4, 5) if in_one_attempt else (4, 6)), stop=None if in_one_attempt else (5, stop))
    if not in_one_attempt:
        store.train(store.config(), stop)
        assert store.status == 143
        assert recovery.load(store.root / "run").rate == 0.5
    with pytest.raises(DivergedLoss, match="the loss was nan") as caught:
        store.train(store.config())
    assert "training.learningRate (now 0.005)" in caught.value.hint
    assert caught.value.exit_code == 64


def test_a_held_out_loss_that_is_no_number_makes_no_checkpoint(store: "Store", monkeypatch: pytest.MonkeyPatch) -> None:
    losses = iter([5.0, 4.0, NAN, 3.0, 2.0])  # base, steps 2 and 4, and these once more
    monkeypatch.setattr("codetune_trainer.train.scoring.evaluating.mean_loss", lambda *_: next(losses))
    events = store.train(store.config())
    (back,) = [event for event in events if isinstance(event, ResumedEvent)]
    assert (back.step, "held-out loss was nan" in back.message) == (2, True)
    assert store.result.best_checkpoint == "step-000006"


def test_a_lower_rate_stays_with_the_run(store: "Store", monkeypatch: pytest.MonkeyPatch) -> None:
    _diverge(monkeypatch, 3)
    store.train(store.config())
    store.train(store.config())
    assert store.result.parameters.learning_rate == 0.005
