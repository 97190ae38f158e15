"""Real processes that are ended from outside: SIGTERM and SIGKILL, and the attempt that comes after them."""

import json
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from codetune_api.contracts import TrainConfig
from codetune_api.protocol import CheckpointEvent, Event, ProgressEvent, ResumedEvent

if TYPE_CHECKING:
    from unit.train.conftest import Store

STEPS = 400
"""More than a process does before a test ends it, few enough for the attempt after it."""


def _is_checkpoint(event: Event) -> bool:
    return isinstance(event, CheckpointEvent)


def _go_on(store: "Store", config: TrainConfig) -> int:
    """The attempt after it, in this process, on to a few steps more; returns the step that it went on from."""
    (resumed,) = [event for event in store.train(config) if isinstance(event, ResumedEvent)]
    return resumed.step


@pytest.fixture
def config(store: "Store") -> TrainConfig:
    """A run without dropout and early ends, with a checkpoint every 20 steps."""
    changes = {"every_steps": 20, "keep": 2}
    base = store.config(training={"max_steps": STEPS, "scheduler": "Constant"})
    return base.model_copy(update={"checkpoints": base.checkpoints.model_copy(update=changes)})


def test_sigterm_ends_a_run_with_a_checkpoint_of_its_last_step(store: "Store", config: TrainConfig) -> None:
    process = store.start(config)
    process.wait_for(_is_checkpoint)
    process.wait_for(lambda event: isinstance(event, ProgressEvent))
    assert process.end(signal.SIGTERM) == 143
    last = max(store.losses())
    assert store.checkpoints()[-1] == f"step-{last:06d}"
    assert "the run goes on from the checkpoint" in process.output[-1]
    assert not process.termination.exists()
    assert _go_on(store, config) == last


def test_after_sigkill_a_run_goes_on_from_the_last_whole_checkpoint(store: "Store", config: TrainConfig) -> None:
    process = store.start(config)
    process.wait_for(_is_checkpoint)
    assert process.end(signal.SIGKILL) == -signal.SIGKILL
    resumed = _go_on(store, config)
    assert resumed % 20 == 0
    cut = store.losses()
    store.train(config.model_copy(update={"output": "whole"}))
    assert cut == pytest.approx(store.losses("whole"), abs=1e-6)


def test_sigterm_before_the_recipe_begins_ends_the_process_by_its_own_doing(
    store: "Store", config: TrainConfig
) -> None:
    pipe = store.root / "run.json"
    os.mkfifo(pipe)
    process = store.start(config)
    # Opens once the process wants to read its configuration: libraries are loaded, nothing has begun.
    with pipe.open("w"):
        assert process.end(signal.SIGTERM) == 143
    assert not (store.root / "run").exists()


def test_a_failure_is_in_the_termination_log_and_in_the_runs_own_log(store: "Store", tmp_path: Path) -> None:
    config = store.config(dataset="gone")
    process = store.start(config)
    assert process.end() == 1
    last = json.loads(process.termination.read_text())
    assert last["reason"] == "DatasetMissing"
    assert "Rescan" in last["hint"]
    assert "DatasetMissing" in (tmp_path / "run" / "train.log").read_text()
