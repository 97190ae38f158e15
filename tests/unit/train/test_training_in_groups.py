"""Several processes that train one model: real ones, started as a Job starts them, that meet through gloo."""

import json
import os
import signal
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from codetune_api.contracts import ENV_LEADER, TrainConfig
from codetune_api.finetune import Checkpoints
from codetune_api.protocol import CheckpointEvent, Event, ProgressEvent, ResultEvent, ResumedEvent, StageEvent

if TYPE_CHECKING:
    from unit.train.conftest import Process, Store

pytestmark = pytest.mark.timeout(300)


def _config(store: "Store", run: str, gpus: int = 0, **changes: Any) -> TrainConfig:
    """A run whose losses do not depend on chance: each process would drop out other values."""
    lora = store.config().lora.model_copy(update={"dropout": 0.0})
    return store.config(run, gpus=gpus, lora=lora, **changes)


def _long(store: "Store", run: str, gpus: int = 0, **changes: Any) -> TrainConfig:
    """Longer than a process lives in a test."""
    training = {"max_steps": 100, "scheduler": "Constant"}
    return _config(store, run, gpus, training=training, checkpoints=Checkpoints(every_steps=10, keep=2), **changes)


def _workers(launcher: int) -> list[int]:
    """Process ids of a launcher's training processes: the children of its torchrun."""
    (torchrun,) = _children(launcher)
    return _children(torchrun)


def _children(parent: int) -> list[int]:
    return [
        int(pid) for task in Path(f"/proc/{parent}/task").iterdir() for pid in (task / "children").read_text().split()
    ]


def _is_checkpoint(event: Event) -> bool:
    return isinstance(event, CheckpointEvent)


def test_one_two_and_four_processes_have_the_same_losses_and_say_and_write_the_same_once(store: "Store") -> None:
    store.train(_config(store, "alone"))
    alone = store.result
    for count in (2, 4):
        process = store.start(_config(store, f"group{count}", count))
        assert process.end() == 0, process.output
        assert store.losses(f"group{count}") == pytest.approx(store.losses("alone"), abs=1e-5)
        (result,) = [event.train for event in process.events if isinstance(event, ResultEvent)]
        assert result is not None
        assert result.evaluation is not None
        assert alone.evaluation is not None
        assert result.evaluation.tuned.loss == pytest.approx(alone.evaluation.tuned.loss, abs=1e-5)
        assert (result.steps, result.tokens) == (alone.steps, alone.tokens)
        assert store.checkpoints(f"group{count}") == store.checkpoints("alone")
        stages = [event.stage for event in process.events if isinstance(event, StageEvent)]
        assert stages == ["Tokenizing", "LoadingModel", "Baseline", "Training", "Evaluating"]
        steps = [event.step for event in process.events if isinstance(event, ProgressEvent)]
        assert steps == sorted(steps)
        assert steps[-1] == 6
        rows = (store.root / f"group{count}" / "metrics.jsonl").read_text().splitlines()
        assert len([row for row in rows if "learningRate" in row]) == 6
        assert (store.root / f"group{count}" / "train.log").read_text().count("event=result") == 1


def test_a_batch_that_does_not_spread_evenly_has_the_same_losses(store: "Store") -> None:
    training = {"batch_tokens": 3 * 64}
    store.train(_config(store, "alone", training=training))
    assert store.start(_config(store, "group", 2, training=training)).end() == 0
    assert store.losses("group") == pytest.approx(store.losses("alone"), abs=1e-5)


def test_a_base_model_whose_weights_are_spread_over_processes_has_the_same_losses_and_goes_on(store: "Store") -> None:
    store.train(_config(store, "alone"))
    config = _config(store, "spread", 2, training={"sharding": "On"})
    process = store.start(config)
    assert process.end() == 0, process.output
    assert store.losses("spread") == pytest.approx(store.losses("alone"), abs=1e-5)
    (result,) = [event.train for event in process.events if isinstance(event, ResultEvent)]
    assert result is not None
    assert (result.parameters.sharded, result.parameters.processes) == (True, 2)
    assert result.evaluation is not None
    assert result.evaluation.tuned.loss == pytest.approx(store.evaluation.tuned.loss, abs=1e-5)
    # Plain files: whoever has the whole model goes on from them.
    events = store.train(_config(store, "spread", training={"max_steps": 8}))
    (resumed,) = [event for event in events if isinstance(event, ResumedEvent)]
    assert resumed.step == 6


def test_after_kill_9_of_one_process_all_end_and_the_next_attempt_goes_on_with_the_same_losses(store: "Store") -> None:
    config = _long(store, "run", 2)
    process = store.start(config)
    process.wait_for(_is_checkpoint)
    os.kill(_workers(process.pid)[1], signal.SIGKILL)
    assert process.end() == 1
    again = store.start(config)
    assert again.end() == 0
    (resumed,) = [event for event in again.events if isinstance(event, ResumedEvent)]
    assert resumed.step > 0
    assert resumed.step % 10 == 0
    store.train(_long(store, "alone"))
    assert store.losses() == pytest.approx(store.losses("alone"), abs=1e-3)


def test_sigterm_stops_all_at_the_same_step_with_a_checkpoint_of_it(store: "Store") -> None:
    config = _long(store, "run", 2)
    process = store.start(config)
    process.wait_for(_is_checkpoint)
    assert process.end(signal.SIGTERM) == 143, process.output
    last = max(store.losses())
    assert store.checkpoints()[-1] == f"step-{last:06d}"
    assert not process.termination.exists()
    # Any number of processes goes on from it.
    alone = config.model_copy(update={"gpus": 0})
    (resumed,) = [event for event in store.train(alone) if isinstance(event, ResumedEvent)]
    assert resumed.step == last


ONE_IS_SHORT = """
import os, sys, torch
from codetune_trainer.__main__ import main
from codetune_trainer.train import fitting
real, failures = fitting.accumulate, iter([os.environ["RANK"] == "1"])
def accumulate(*arguments):
    if next(failures, False):
        raise torch.OutOfMemoryError("CUDA out of memory.")
    return real(*arguments)
fitting.accumulate = accumulate
sys.exit(main(["train"]))
"""


def _start_short(store: "Store", tmp_path: Path, config: TrainConfig) -> "Process":
    """Two processes, the second of which is short of memory once."""
    (tmp_path / "one_is_short.py").write_text(ONE_IS_SHORT)
    (tmp_path / "codes").mkdir()
    torchrun = [
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        str(tmp_path / "one_is_short.py"),
    ]
    return store.start(config, torchrun, CODETUNE_EXIT_CODES=str(tmp_path / "codes"))


def test_where_the_memory_of_one_process_is_short_all_take_less_at_once(store: "Store", tmp_path: Path) -> None:
    process = _start_short(store, tmp_path, _config(store, "group", 2))
    assert process.end() == 0, process.output
    stages = [event.message for event in process.events if isinstance(event, StageEvent)]
    assert [message for message in stages if "going on with" in message] == [
        "Memory is short: going on with 1 sequences at once"
    ]
    store.train(_config(store, "alone"))
    assert store.losses("group") == pytest.approx(store.losses("alone"), abs=1e-5)


def test_where_the_base_is_spread_the_next_attempt_takes_less_whichever_process_was_short(
    store: "Store", tmp_path: Path
) -> None:
    config = _config(store, "group", 2, training={"sharding": "On"})
    process = _start_short(store, tmp_path, config)
    assert process.end() == 1, process.output
    assert sorted(path.read_text() for path in (tmp_path / "codes").iterdir()) in (["1"], ["1", "75"])
    assert json.loads(process.termination.read_text())["reason"] == "OutOfMemory"
    again = store.start(config)
    assert again.end() == 0, again.output
    (result,) = [event.train for event in again.events if isinstance(event, ResultEvent)]
    assert result is not None
    assert any("1 sequences at once" in note for note in result.parameters.notes)


def test_what_all_processes_refuse_ends_the_pod_for_good_with_one_last_word(store: "Store") -> None:
    process = store.start(_config(store, "run", 2, training={"sequence_length": 512}))
    assert process.end() == 64
    assert "training.sequenceLength is 512" in process.termination.read_text()


def test_a_pod_that_comes_again_after_the_end_meets_nobody_and_only_the_first_one_reports(store: "Store") -> None:
    store.train(_config(store, "run"))
    config = _config(store, "run", nodes=2)
    leader = {ENV_LEADER: "nowhere:1"}
    first, second = (store.start(config, **leader, JOB_COMPLETION_INDEX=str(index)) for index in (0, 1))
    assert (first.end(), second.end()) == (0, 0)
    assert [event.event for event in first.events][-1] == "result"
    assert second.events == []


def test_a_node_that_is_stopped_while_it_waits_for_the_others_ends_at_once(store: "Store") -> None:
    told = {ENV_LEADER: f"localhost:{_free_port()}", "JOB_COMPLETION_INDEX": "1"}
    node = store.start(_config(store, "run", nodes=2), **told)
    while not _children(node.pid):  # its torchrun, which nobody answers
        time.sleep(0.05)
    assert node.end(signal.SIGTERM) == 143


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_two_nodes_meet_at_the_pod_with_index_0_and_one_that_is_stopped_stops_both(store: "Store") -> None:
    config = _long(store, "run", nodes=2)
    leader = {ENV_LEADER: f"localhost:{_free_port()}"}
    nodes = [store.start(config, **leader, JOB_COMPLETION_INDEX=str(index)) for index in (0, 1)]
    nodes[0].wait_for(_is_checkpoint)
    assert nodes[1].end(signal.SIGTERM) == 143
    assert nodes[0].end() == 143
    assert store.checkpoints()[-1] == f"step-{max(store.losses()):06d}"


def test_a_node_that_loses_the_other_one_ends_with_a_code_of_its_own(store: "Store") -> None:
    config = _long(store, "run", nodes=2)
    leader = {ENV_LEADER: f"localhost:{_free_port()}"}
    nodes = [store.start(config, **leader, JOB_COMPLETION_INDEX=str(index)) for index in (0, 1)]
    nodes[0].wait_for(_is_checkpoint)
    (worker,) = _workers(nodes[1].pid)
    os.kill(worker, signal.SIGKILL)
    assert nodes[1].end() == 1
    assert nodes[0].end() == 75
    assert not nodes[0].termination.exists()
