"""Real processes that are ended from outside: SIGTERM and SIGKILL, and the attempt that comes after them."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from codetune_api.contracts import ENV_CONFIG, ENV_MODEL, ENV_SCRATCH, ENV_STORE, ENV_TERMINATION_LOG, TrainConfig
from codetune_api.protocol import CheckpointEvent, Event, ProgressEvent, ResumedEvent, parse

if TYPE_CHECKING:
    from unit.train.conftest import Store

STEPS = 120
"""More than a process does before a test ends it, few enough for the attempt after it."""


class Process:
    """`python -m codetune_trainer train`, as a Job starts it."""

    def __init__(self, store: "Store", config: TrainConfig) -> None:
        path = store.root / "config.json"
        if not path.exists():
            path.write_text(config.model_dump_json(by_alias=True, exclude_none=True))
        self.termination = store.root / "termination"
        places = {
            ENV_CONFIG: path,
            ENV_STORE: store.root,
            ENV_SCRATCH: store.root,
            ENV_MODEL: store.model,
            ENV_TERMINATION_LOG: self.termination,
        }
        environment = {**os.environ, **{key: str(value) for key, value in places.items()}, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "codetune_trainer", "train"]
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
        )
        self._nonce = config.nonce
        self.output: list[str] = []

    def wait_for(self, is_wanted: Callable[[Event], bool]) -> None:
        """Read on until an event comes."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.output.append(line)
            event = parse(line, self._nonce)
            if event is not None and is_wanted(event):
                return
        raise AssertionError("the run ended before that:\n" + "".join(self.output)[-3000:])

    def end(self, number: int | None = None) -> int:
        """Send a signal where one is given, and wait; returns the exit status."""
        if number is not None:
            self._process.send_signal(number)
        self.output.append(self._process.communicate(timeout=100)[0])
        return self._process.returncode


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
    process = Process(store, config)
    process.wait_for(_is_checkpoint)
    process.wait_for(lambda event: isinstance(event, ProgressEvent))
    assert process.end(signal.SIGTERM) == 143
    last = max(store.losses())
    assert store.checkpoints()[-1] == f"step-{last:06d}"
    assert "the run goes on from the checkpoint" in process.output[-1]
    assert not process.termination.exists()
    assert _go_on(store, config) == last


def test_after_sigkill_a_run_goes_on_from_the_last_whole_checkpoint(store: "Store", config: TrainConfig) -> None:
    process = Process(store, config)
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
    pipe = store.root / "config.json"
    os.mkfifo(pipe)
    process = Process(store, config)
    # Opens once the process wants to read its configuration: libraries are loaded, nothing has begun.
    with pipe.open("w"):
        assert process.end(signal.SIGTERM) == 143
    assert not (store.root / "run").exists()


def test_a_failure_is_in_the_termination_log_and_in_the_runs_own_log(store: "Store", tmp_path: Path) -> None:
    config = store.config(dataset="gone")
    process = Process(store, config)
    assert process.end() == 1
    last = json.loads(process.termination.read_text())
    assert last["reason"] == "DatasetMissing"
    assert "Rescan" in last["hint"]
    assert "DatasetMissing" in (tmp_path / "run" / "train.log").read_text()
