"""What a run learns from attempts that ended badly: less memory after a death without a word, a lower learning rate
after a loss that is no number; each once."""

import itertools
import json
import math
import os
import signal
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal

import pytest
import torch
from codetune_api.contracts import TrainConfig
from codetune_api.protocol import ParametersEvent, ResumedEvent, StageEvent
from codetune_bucket.mirroring import Mirror
from codetune_trainer.errors import DivergedLoss, OutOfMemory, OutOfMemoryNow, PeerLost
from codetune_trainer.train import fitting, recovering, recovery, run, stepping
from codetune_trainer.train.group import Group
from codetune_trainer.train.pacing import StopSignal
from codetune_trainer.train.recovery import Recovery
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


def _without_dropout(store: "Store", run: str = "run") -> TrainConfig:
    return store.config(run, lora=store.config().lora.model_copy(update={"dropout": 0.0}))


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
    slower = store.config("slower", training={"learning_rate": 0.005}, lora=_without_dropout(store).lora)
    store.train(slower)
    _diverge(monkeypatch, 2)
    events = store.train(_without_dropout(store))
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
    monkeypatch.setattr("codetune_trainer.train.evaluating.mean_loss", lambda *_: next(losses))
    events = store.train(store.config())
    (back,) = [event for event in events if isinstance(event, ResumedEvent)]
    assert (back.step, "held-out loss was nan" in back.message) == (2, True)
    assert store.result.best_checkpoint == "step-000006"


def test_a_lower_rate_stays_with_the_run(store: "Store", monkeypatch: pytest.MonkeyPatch) -> None:
    _diverge(monkeypatch, 3)
    store.train(store.config())
    store.train(store.config())
    assert store.result.parameters.learning_rate == 0.005


LEARNED = [
    pytest.param(Recovery(), 0, Recovery(), id="nothing has happened"),
    pytest.param(Recovery(deaths=1, most_rows=2), 0, Recovery(deaths=0, most_rows=2), id="half was enough"),
    pytest.param(
        Recovery(is_trying=True, micro_batch=5),
        1,
        Recovery(is_trying=True, micro_batch=5, deaths=1, told_deaths=1, most_rows=3),
        id="died of memory at full size",
    ),
    pytest.param(
        Recovery(is_trying=True, micro_batch=1),
        1,
        Recovery(is_trying=True, micro_batch=1, deaths=1, told_deaths=1, most_rows=1, checkpointing=True),
        id="died of memory at one sequence",
    ),
    pytest.param(
        Recovery(is_trying=True, micro_batch=4, is_short=True),
        0,
        Recovery(is_trying=True, micro_batch=4, most_rows=2),
        id="has said itself that memory is short",
    ),
    pytest.param(
        Recovery(is_trying=True, micro_batch=2, is_short=True, most_rows=2),
        0,
        Recovery(is_trying=True, micro_batch=2, most_rows=1),
        id="has said it again",
    ),
    pytest.param(
        Recovery(is_trying=True, micro_batch=1, is_short=True, most_rows=1),
        0,
        Recovery(is_trying=True, micro_batch=1, most_rows=1, checkpointing=True),
        id="has said it at one sequence",
    ),
    pytest.param(
        Recovery(is_trying=True, micro_batch=2, deaths=1, told_deaths=1, is_short=True, most_rows=2),
        1,
        Recovery(is_trying=True, micro_batch=2, deaths=1, told_deaths=1, most_rows=1),
        id="has said it, where one before was killed",
    ),
    pytest.param(
        Recovery(is_trying=True, micro_batch=5),
        0,
        Recovery(is_trying=True, micro_batch=5),
        id="ended from outside, as with its node",
    ),
    pytest.param(
        Recovery(is_trying=True, micro_batch=2, deaths=1, told_deaths=1, most_rows=2),
        1,
        Recovery(is_trying=True, micro_batch=2, deaths=1, told_deaths=1, most_rows=2),
        id="after a death of memory, ended otherwise",
    ),
    pytest.param(
        Recovery(told_deaths=1),
        2,
        Recovery(told_deaths=2),
        id="died of memory past its first steps, where a smaller micro-batch would not have helped",
    ),
    pytest.param(
        Recovery(is_trying=True, micro_batch=4, told_deaths=2),
        0,
        Recovery(is_trying=True, micro_batch=4),
        id="another Job begins to count anew",
    ),
]


@pytest.mark.parametrize(("left", "deaths", "learned"), LEARNED)
def test_who_finds_the_mark_of_an_attempt_that_died_of_memory_takes_half(
    left: Recovery, deaths: int, learned: Recovery
) -> None:
    assert recovery.learn(left, deaths, "cuda") == learned


@pytest.mark.parametrize(
    "left",
    [
        pytest.param(
            Recovery(is_trying=True, micro_batch=2, deaths=1, told_deaths=1, most_rows=2), id="half was too much too"
        ),
        pytest.param(
            Recovery(is_trying=True, micro_batch=1, checkpointing=True, told_deaths=1), id="nothing is left to try"
        ),
    ],
)
def test_who_finds_a_second_mark_gives_up_and_says_what_to_change(left: Recovery) -> None:
    with pytest.raises(OutOfMemory, match="first steps") as caught:
        recovery.learn(left, 2, "cuda")
    assert "resources.memory" in caught.value.hint
    assert caught.value.exit_code == 64


@pytest.mark.parametrize(
    ("device", "wanted", "unwanted"),
    [
        pytest.param("cuda", "GPUs that have more memory", "resources.memory", id="of a GPU"),
        pytest.param("cpu", "resources.memory", "GPU", id="of the pod"),
    ],
)
def test_who_has_said_at_the_least_that_memory_is_short_is_told_what_frees_some(
    device: Literal["cpu", "cuda"], wanted: str, unwanted: str
) -> None:
    left = Recovery(is_trying=True, micro_batch=1, most_rows=1, checkpointing=True, is_short=True)
    with pytest.raises(OutOfMemory, match="too little memory") as caught:
        recovery.learn(left, 0, device)
    assert caught.value.exit_code == 64
    assert wanted in caught.value.hint
    assert unwanted not in caught.value.hint
    assert all(name in caught.value.hint for name in ("sequenceLength", "lora.rank", "gradientCheckpointing: On"))


def test_a_sharded_run_whose_memory_is_short_takes_half_in_each_attempt_until_nothing_is_left_to_halve(
    store: "Store", monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def accumulate(_model: Any, _batch: Any, rows: int, *_: Any) -> float:
        tried.append(rows)
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr(fitting, "accumulate", accumulate)
    _shard(monkeypatch)
    for _ in range(3):
        with pytest.raises(OutOfMemoryNow) as caught:
            store.train(store.config())
        assert (caught.value.exit_code, caught.value.reason) == (1, "OutOfMemory")
        assert caught.value.hint
    with pytest.raises(OutOfMemory, match="too little memory") as last:
        store.train(store.config())
    assert (last.value.exit_code, tried) == (64, [4, 2, 1])


def test_a_shortage_past_the_first_steps_of_a_sharded_run_is_learned_from_too(
    store: "Store", monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = itertools.count(1)

    def accumulate(*arguments: Any) -> float:
        if next(calls) == 5:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return stepping.accumulate(*arguments)

    monkeypatch.setattr(fitting, "accumulate", accumulate)
    _shard(monkeypatch)
    with pytest.raises(OutOfMemoryNow):
        store.train(store.config())
    store.train(store.config())
    assert any("2 sequences at once" in note for note in store.result.parameters.notes)


@pytest.mark.parametrize("rank", [0, 1], ids=["the first process", "another one"])
def test_whichever_process_is_short_of_memory_leaves_the_mark(store: "Store", rank: int) -> None:
    folder = store.root / "run"
    folder.mkdir()
    short = Group(rank, 2)
    fake: Any = SimpleNamespace(
        group=SimpleNamespace(leads=short.leads, lead=lambda _: json.dumps(asdict(Recovery()))),
        **{"folder": folder, "config": store.config(), "mirror": Mirror(folder), "micro_batch": 4},
        parameters=SimpleNamespace(gradient_checkpointing=True),
    )
    with pytest.raises(OutOfMemoryNow), recovering.marking(fake):
        raise OutOfMemoryNow("short")
    assert recovery.load(folder) == Recovery(is_trying=True, is_short=True, micro_batch=4, checkpointing=True)
    assert [path.name for path in folder.iterdir()] == ["recovery.json"]


def _shard(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a run of one process believe that its base is spread over several."""
    real, changes = run._resolve, {"sharded": True, "gradient_checkpointing": True}
    monkeypatch.setattr(run, "_resolve", lambda *arguments: real(*arguments).model_copy(update=changes))
    monkeypatch.setattr(run, "shard", lambda *_: None)


def test_a_process_that_is_killed_in_its_first_step_is_followed_by_one_with_half_the_micro_batch_and_then_by_a_failure(
    store: "Store",
) -> None:
    config = _without_dropout(store)
    store.train(_without_dropout(store, "whole"))
    for rows, deaths in ((4, 0), (2, 1)):
        config = store.configure(config, memory_deaths=deaths)
        _kill_at(store, config, lambda event: isinstance(event, StageEvent) and event.stage == "Training")
        left = json.loads((store.root / "run" / "recovery.json").read_text())
        assert (left["is_trying"], left["micro_batch"]) == (True, rows)
    config = store.configure(config, memory_deaths=2)
    process = store.start(config)
    assert process.end() == 64
    said = json.loads(process.termination.read_text())
    assert (said["reason"], "resources.memory" in said["hint"]) == ("OutOfMemory", True)
    # With more memory it is started again, and must not be refused for what was before.
    store.train(config)
    assert any("2 sequences at once" in note for note in store.result.parameters.notes)
    assert store.losses() == pytest.approx(store.losses("whole"), abs=1e-5)


def test_a_process_that_is_killed_for_another_cause_is_followed_by_one_like_it(store: "Store") -> None:
    config = _without_dropout(store)
    for _ in range(3):
        _kill_at(store, config, lambda event: isinstance(event, StageEvent) and event.stage == "Training")
    store.train(config)
    assert store.result.steps == 6
    assert not any("sequences at once" in note for note in store.result.parameters.notes)


def _kill_at(store: "Store", config: TrainConfig, is_wanted: Callable[[Any], bool]) -> None:
    """Stopped where it says a line, so that it is surely killed before it does the next thing."""
    process = store.start(config)
    process.wait_for(is_wanted)
    assert process.end(signal.SIGKILL) == -signal.SIGKILL


def test_an_attempt_that_is_past_its_first_steps_or_ends_by_itself_leaves_no_mark(store: "Store") -> None:
    store.train(store.config(), store.stop_after(6))
    assert store.status == 143
    assert not recovery.load(store.root / "run").is_trying
    store.train(store.config())
    assert recovery.load(store.root / "run") == Recovery(micro_batch=4, is_finished=True)


@pytest.mark.parametrize(
    ("error", "stays"),
    [
        pytest.param(PeerLost("gone"), True, id="another process is gone, perhaps for want of memory"),
        pytest.param(OutOfMemoryNow("short"), True, id="the next attempt takes less"),
        pytest.param(ValueError("wrong"), False, id="a failure that says why"),
        pytest.param(OutOfMemory("short"), False, id="nothing is left to try"),
    ],
)
def test_the_mark_stays_where_the_cause_may_be_memory_and_nobody_has_said_so(
    store: "Store", monkeypatch: pytest.MonkeyPatch, error: Exception, stays: bool
) -> None:
    def fail(_run: Any) -> None:
        raise error

    monkeypatch.setattr("codetune_trainer.train.run.fit", fail)
    with pytest.raises(type(error)):
        store.train(store.config())
    assert recovery.load(store.root / "run").is_trying is stays


def test_a_mark_that_cannot_be_read_teaches_nothing(store: "Store") -> None:
    os.makedirs(store.root / "run")
    (store.root / "run" / "recovery.json").write_text("{")
    store.train(store.config())
    assert store.result.parameters.notes == store.result.parameters.notes[:1]
