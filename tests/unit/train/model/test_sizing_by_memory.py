"""How many sequences go through the model at once, by what a forward pass keeps and what memory is free."""

from pathlib import Path
from typing import Any

import pytest
import torch
from codetune_api.finetune import Checkpoints, LoraOverrides, Parameters, TrainingOverrides
from codetune_api.presets import Facts, resolve
from codetune_trainer.architectures import EMBEDDINGS
from codetune_trainer.train import machine, run
from codetune_trainer.train.data.packing import pack
from codetune_trainer.train.group import ALONE
from codetune_trainer.train.model import losses, modelling, sizing
from codetune_trainer.train.model.footprint import Footprint, Kept, measure
from codetune_trainer.train.model.sizing import choose_size
from codetune_trainer.train.model.stepping import autocast
from transformers import AutoConfig, AutoModelForCausalLM


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


def _rows(found: Footprint, whole: float) -> float:
    """Bytes for a pass over so many sequences of which everything is kept."""
    return found.whole.constant + sizing._PASSING * whole * found.whole.row


def test_with_less_memory_fewer_sequences_go_at_once_and_at_last_activations_are_computed_twice(model: Any) -> None:
    found, fixed = measure(model, "Float32", 64, shared=True), sizing._count_fixed_bytes(model, sharded=False)
    free = [int((fixed + _rows(found, rows + 0.01)) / sizing._SHARE) for rows in (20, 8, 4, 1)]
    sizes = [choose_size(model, _parameters(8), bytes_left) for bytes_left in (*free, int(0.9 * free[-1]), 0)]
    assert [size.rows for size in sizes[:4]] == [8, 8, 4, 1]
    assert not any(size.checkpointing for size in sizes[:4])
    assert sizes[4].checkpointing
    assert sizes[5] == sizing.Sizing(1, True)


def test_where_activations_are_computed_twice_as_many_sequences_go_at_once_as_fit(model: Any) -> None:
    parameters = _parameters(8).model_copy(update={"gradient_checkpointing": True})
    modelling.enable_checkpointing(model)
    found, fixed = measure(model, "Float32", 64, shared=True), sizing._count_fixed_bytes(model, sharded=False)
    assert found.recomputed.row < found.whole.row
    for rows in (1, 2, 4, 8):
        free = (fixed + found.recomputed.constant + sizing._PASSING * (rows + 0.01) * found.recomputed.row) / 0.85
        assert choose_size(model, parameters, int(free)) == sizing.Sizing(rows, True)
    assert choose_size(model, parameters, 0) == sizing.Sizing(1, True)


FOUND = Footprint(whole=Kept(constant=100, row=1000), recomputed=Kept(constant=20, row=100))


@pytest.mark.parametrize(
    ("room", "asked", "wanted"),
    [
        pytest.param(6700, False, (5, False), id="all is kept while one sequence fits"),
        pytest.param(1400, False, (1, False), id="one"),
        pytest.param(1399, False, (10, True), id="none: as many as fit when activations are computed twice"),
        pytest.param(6700, True, (51, True), id="asked for"),
        pytest.param(100, False, (0, True), id="not even then"),
        pytest.param(-5, True, (0, True), id="no room at all"),
    ],
)
def test_the_sequences_that_fit(room: float, asked: bool, wanted: tuple[int, bool]) -> None:
    assert sizing.choose_rows(FOUND, room, checkpointing=asked) == wanted


def test_gradients_and_moments_of_the_adapter_count(model: Any) -> None:
    weights = sum(weight.numel() for weight in modelling.trainable_weights(model))
    one_layer = sum(weight.nbytes for weight in model.get_base_model().model.layers[0].parameters())
    before = sizing._count_fixed_bytes(model, sharded=False)
    assert before == 12 * weights + 12 * losses.CHUNK * 264
    assert sizing._count_fixed_bytes(model, sharded=True) == before + 2 * one_layer


def test_memory_that_is_short_in_the_measurement_means_one_sequence(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("short")

    monkeypatch.setattr("codetune_trainer.train.model.footprint.measure", fail)
    assert choose_size(model, _parameters(8), 2**40) == sizing.Sizing(1, True)
    spread = _parameters(8).model_copy(update={"sharded": True, "gradient_checkpointing": True})
    with pytest.raises(torch.OutOfMemoryError):  # the others would wait for this process
        choose_size(model, spread, 2**40)


def test_a_gpu_with_little_free_memory_gets_small_passes(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    found, fixed = measure(model, "Float32", 64, shared=True), sizing._count_fixed_bytes(model, sharded=False)
    free = [2**36, (fixed + _rows(found, 2.01)) / sizing._SHARE, fixed]
    rows = []
    for bytes_left in free:
        monkeypatch.setattr("torch.cuda.mem_get_info", lambda _, left=int(bytes_left): (left, 2**36))
        assert machine.free_memory(torch.device("cuda")) == int(bytes_left)
        rows.append(run._choose_micro_batch(model, _parameters(8), torch.device("cuda"), ALONE, shared=True))
        assert model.get_base_model().is_gradient_checkpointing == (bytes_left == fixed)
    assert rows == [8, 2, 1]


def _build(family: str, rank: int, precision: str, *, embeddings: bool = False) -> Any:
    """A model that is wide enough for an adapter of 64 columns to be small in it."""
    shape: dict[str, Any] = {"vocab_size": 300, "hidden_size": 192, "intermediate_size": 384, "num_hidden_layers": 3}
    shape |= {"num_attention_heads": 4, "num_key_value_heads": 2, "pad_token_id": 0, "max_position_embeddings": 512}
    config = AutoConfig.for_model(family, bos_token_id=1, eos_token_id=2, **shape)
    how = modelling.choose_attention(config)
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_config(config, attn_implementation=how).to(modelling.DTYPES[precision])
    facts = Facts(10_000, False, "cpu", True, 512, modelling.linear_modules(config, "x"), EMBEDDINGS)
    lora = LoraOverrides(rank=rank, train_embeddings=embeddings)
    training = TrainingOverrides(sequence_length=512, batch_tokens=512)
    parameters = resolve("Smaller", lora, training, Checkpoints(), facts)
    model = modelling.add_adapter(base.requires_grad_(False), parameters, "x")
    for weight in modelling.trainable_weights(model):  # as PEFT makes them for a base that is loaded, not built
        weight.data = weight.data.float()
    return model


def _count_kept(model: Any, precision: str, rows: int, length: int) -> int:
    """What autograd really saves in a pass."""
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage: Any = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    batch = pack([part for _ in range(rows) for part in ([5] * (length - 9), [7] * 9)], length, padding=0)
    model.train()
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor), autocast(precision, model.device):
        loss = losses.sum_loss(model, batch)
    del loss  # until here, what is noted stays where it is
    assert len(batch) == rows
    return sum(kept.values())


@pytest.mark.parametrize("rank", [2, 64])
@pytest.mark.parametrize(
    ("family", "precision"),
    [("llama", "BFloat16"), ("starcoder2", "BFloat16"), ("gemma2", "BFloat16"), ("llama", "Float32")],
)
def test_what_is_foreseen_is_what_autograd_keeps(family: str, precision: str, rank: int) -> None:
    model = _build(family, rank, precision)
    found = measure(model, precision, 512, shared=True).whole
    assert found.constant + 3 * found.row == pytest.approx(_count_kept(model, precision, 3, 512), rel=0.03)


@pytest.mark.parametrize("precision", ["BFloat16", "Float32"])
def test_an_adapter_on_embeddings_and_head_is_foreseen_too(precision: str) -> None:
    model = _build("llama", 64, precision, embeddings=True)
    found = measure(model, precision, 512, shared=True).whole
    assert found.constant + 3 * found.row == pytest.approx(_count_kept(model, precision, 3, 512), rel=0.03)


def test_what_a_sequence_keeps_hardly_depends_on_the_rank() -> None:
    small, large = (measure(_build("llama", rank, "BFloat16"), "BFloat16", 512, shared=True) for rank in (2, 64))
    # The 64 columns of each of seven layers are kept too.
    columns = 3 * 7 * 62 * 2 * 512
    assert large.whole.row - small.whole.row == pytest.approx(columns, rel=0.01)
    assert large.whole.row < 1.12 * small.whole.row
    assert large.whole.constant > 10 * small.whole.constant


@pytest.mark.parametrize("family", ["llama", "starcoder2", "gemma2"])
def test_with_gradient_checkpointing_inputs_of_layers_and_one_layer_are_kept(family: str) -> None:
    model = _build(family, 2, "Float32")
    before = measure(model, "Float32", 512, shared=True)
    modelling.enable_checkpointing(model)
    now = measure(model, "Float32", 512, shared=True)
    assert now.recomputed.row == pytest.approx(before.recomputed.row, rel=0.03)
    # Besides that one layer, autograd keeps what is kept now that checkpointing is on.
    layer = (before.whole.row - before.recomputed.row) / 2  # three layers, but for what goes into each
    real = _count_kept(model, "Float32", 1, 512)
    assert real < now.recomputed.row < real + 2 * layer


def test_measuring_leaves_no_trace(model: Any) -> None:
    model.eval()
    before = torch.get_rng_state()
    forwards = [vars(module).get("forward") for module in model.modules()]
    first = measure(model, "Float32", 64, shared=False)
    assert torch.equal(torch.get_rng_state(), before)
    assert not model.training
    assert {weight.grad for weight in modelling.trainable_weights(model)} == {None}
    assert [vars(module).get("forward") for module in model.modules()] == forwards
    assert measure(model, "Float32", 64, shared=False) == first


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
