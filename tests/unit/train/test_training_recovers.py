"""What a run learns from attempts that memory was too short for, whether they died without a word or said so."""

import itertools
import json
import os
import signal
from collections.abc import Callable
from dataclasses import asdict
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal

import pytest
import torch
from codetune_api.contracts import TrainConfig
from codetune_api.protocol import StageEvent
from codetune_bucket.mirroring import Mirror
from codetune_trainer.errors import OutOfMemory, OutOfMemoryNow, PeerLost
from codetune_trainer.train import fitting, recovering, recovery, run
from codetune_trainer.train.group import Group
from codetune_trainer.train.model import stepping
from codetune_trainer.train.recovery import Recovery

if TYPE_CHECKING:
    from unit.train.conftest import Store

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
    config = store.without_dropout()
    store.train(store.without_dropout("whole"))
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
    config = store.without_dropout()
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
