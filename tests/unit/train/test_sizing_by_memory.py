"""How many sequences go through the model at once, by what a forward pass keeps and what memory is free."""

from pathlib import Path
from typing import Any

import pytest
import torch
from codetune_api.finetune import Checkpoints, LoraOverrides, Parameters, TrainingOverrides
from codetune_api.presets import Facts, resolve
from codetune_trainer.train import machine, modelling, sizing
from codetune_trainer.train.sizing import choose_size, kept_bytes_a_token


def _parameters(sequences: int, length: int = 64) -> Parameters:
    facts = Facts(10_000, False, "cpu", False, 256, ["q_proj", "v_proj"])
    training = TrainingOverrides(sequence_length=length, batch_tokens=sequences * length)
    return resolve("Smaller", LoraOverrides(rank=2), training, Checkpoints(), facts)


@pytest.fixture
def model(tiny_model: Path) -> Any:
    parameters = _parameters(4)
    base = modelling.load_base(tiny_model, "file:///tiny", "Float32", torch.device("cpu"))
    return modelling.add_adapter(base, parameters, "file:///tiny")


@pytest.mark.parametrize(
    ("rows", "sequences"),
    [
        pytest.param(4, 4, id="all at once"),
        pytest.param(16, 32, id="as many as are enough"),
        pytest.param(9, 18, id="two even passes instead of a full one and a rest"),
        pytest.param(1, 1, id="one"),
    ],
)
def test_with_memory_to_spare_a_pass_is_what_fills_the_device(model: Any, rows: int, sequences: int) -> None:
    assert choose_size(model, _parameters(sequences), 2**40) == sizing.Sizing(rows, False)
    assert choose_size(model, _parameters(sequences), None) == sizing.Sizing(rows, False)


@pytest.mark.parametrize(("processes", "rows"), [(1, 8), (2, 4), (3, 3), (8, 1), (9, 1)])
def test_processes_that_share_a_step_take_as_few_passes_as_they_can(model: Any, processes: int, rows: int) -> None:
    assert choose_size(model, _parameters(8), 2**40, processes).rows == rows


def test_with_less_memory_fewer_sequences_go_at_once_and_at_last_activations_are_computed_twice(model: Any) -> None:
    row = kept_bytes_a_token(model, "Float32") * 64
    found = [choose_size(model, _parameters(8), int(free * row + 2**20)) for free in (20, 8, 4, 0)]
    rows = [size.rows for size in found]
    assert rows[0] == 8
    assert rows == sorted(rows, reverse=True)
    assert 1 < rows[2] < 8
    assert found[3] == sizing.Sizing(1, True)


def test_what_is_kept_counts_every_layer_once_and_no_weight(model: Any) -> None:
    found = kept_bytes_a_token(model, "Float32")
    # 2 layers of width 32 and 48, in float32: at least their inputs and the MLPs' halves, at most a few dozen widths.
    assert 2 * 4 * (4 * 32 + 2 * 48) < found < 2 * 4 * 50 * 32
    assert kept_bytes_a_token(model, "Float32") == found


def test_measuring_leaves_no_trace(model: Any) -> None:
    model.eval()
    before = torch.get_rng_state()
    kept_bytes_a_token(model, "Float32")
    assert torch.equal(torch.get_rng_state(), before)
    assert not model.training
    assert {weight.grad for weight in modelling.trainable_weights(model)} == {None}


@pytest.mark.parametrize(
    ("free", "limit", "used"),
    [
        pytest.param(2_000 * 1024, "max", "5", id="no limit: what the machine has"),
        pytest.param(1_000_000, "1500000", "900000", id="a limit: cached files count as free"),
        pytest.param(0, "1000", "900000", id="above it"),
    ],
)
def test_free_memory_is_that_of_the_container(tmp_path: Path, free: int, limit: str, used: str) -> None:
    (tmp_path / "memory.max").write_text(limit + "\n")
    (tmp_path / "memory.current").write_text(used + "\n")
    (tmp_path / "memory.stat").write_text("anon 500\ninactive_file 300000\nactive_file 100000\n")
    (tmp_path / "meminfo").write_text("MemTotal: 9000 kB\nMemAvailable:    2000 kB\n")
    assert machine.free_memory(torch.device("cpu"), tmp_path, tmp_path / "meminfo") == free


def test_free_memory_is_unknown_where_nothing_says_it(tmp_path: Path) -> None:
    assert machine.free_memory(torch.device("cpu"), tmp_path, tmp_path / "none") is None


def test_the_time_since_the_start_is_counted_from_the_process() -> None:
    first = machine.seconds_since_start()
    assert 0 < first <= machine.seconds_since_start()
