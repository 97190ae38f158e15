"""What can't be trained is refused by name, with a cure, before any weight is loaded."""

import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from codetune_api.finetune import LoraOverrides
from codetune_trainer.errors import (
    DatasetMissing,
    DeviceMissing,
    EmptyDataset,
    InvalidParameters,
    ModelNotFound,
    NotCausalModel,
    PickledWeights,
    RemoteCodeModel,
    TrainerError,
    UnsupportedModel,
)
from codetune_trainer.train import fitting, machine
from codetune_trainer.train.model import modelling, stepping
from transformers import (
    BertConfig,
    Gemma2Config,
    GPT2Config,
    Lfm2Config,
    Lfm2MoeConfig,
    Llama4TextConfig,
    LlamaConfig,
    MambaConfig,
    MiniMaxConfig,
    Qwen3Config,
    Starcoder2Config,
)

if TYPE_CHECKING:
    from unit.train.conftest import Store


def _change_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def _bring_code(folder: Path) -> None:
    _change_json(folder / "config.json", model_type="own", auto_map={"AutoConfig": "own.Config"})
    (folder / "own.py").write_text("raise SystemExit('this must never run')")


def _break_weights(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"not weights")


def _pickle(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _no_end(folder: Path) -> None:
    _change_json(folder / "tokenizer_config.json", eos_token=None)


def _bert(folder: Path) -> None:
    (folder / "config.json").write_text(BertConfig(hidden_size=24).to_json_string())


def _quantize(folder: Path) -> None:
    _change_json(folder / "config.json", quantization_config={"quant_method": "gptq", "bits": 4})


def _gpt2(folder: Path) -> None:
    (folder / "config.json").write_text(GPT2Config(n_embd=16, n_layer=1, n_head=2).to_json_string())


@pytest.mark.parametrize(
    ("change", "expected", "said"),
    [
        pytest.param(lambda folder: shutil.rmtree(folder), ModelNotFound, "no config.json", id="no folder"),
        pytest.param(lambda folder: (folder / "config.json").unlink(), ModelNotFound, "no config.json", id="no config"),
        pytest.param(lambda folder: (folder / "config.json").write_text("{"), UnsupportedModel, "can't be read",
                     id="a config that is no JSON"),
        pytest.param(_bring_code, RemoteCodeModel, "its own Python code", id="remote code"),
        pytest.param(_pickle, PickledWeights, "no \\*.safetensors", id="pickled weights"),
        pytest.param(_break_weights, UnsupportedModel, "can't be loaded", id="damaged weights"),
        pytest.param(_bert, NotCausalModel, "bert model, which is not a causal language model", id="an encoder"),
        pytest.param(lambda folder: _change_json(folder / "config.json", num_attention_heads=5), UnsupportedModel,
                     "can't be read", id="numbers that do not fit"),
        pytest.param(_quantize, UnsupportedModel, "quantized already \\(gptq", id="quantized weights"),
        pytest.param(_gpt2, UnsupportedModel, "no linear layer", id="no layer for an adapter"),
        pytest.param(lambda folder: (folder / "tokenizer.json").unlink(), UnsupportedModel, "tokenizer",
                     id="no tokenizer"),
        pytest.param(_no_end, UnsupportedModel, "no end-of-text token", id="no end of text"),
    ],
)  # fmt: skip
def test_a_base_model_that_cannot_be_trained_is_refused(
    store: "Store", tmp_path: Path, change: Callable[[Path], Any], expected: type[TrainerError], said: str
) -> None:
    store.model = Path(shutil.copytree(store.model, tmp_path / "model"))
    change(store.model)
    with pytest.raises(expected, match=said) as caught:
        store.train(store.config())
    assert caught.value.hint
    assert "file:///tiny" in caught.value.message


def test_code_of_a_model_that_transformers_knows_itself_is_left_alone(store: "Store", tmp_path: Path) -> None:
    store.model = Path(shutil.copytree(store.model, tmp_path / "model"))
    _change_json(store.model / "config.json", auto_map={"AutoModelForCausalLM": "own.Model"})
    store.train(store.config(training={"max_steps": 1}))
    assert store.status == 0


def _remove_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()


def _edit_files(folder: Path) -> None:
    path = folder / "files.jsonl"
    path.write_text(path.read_text().replace("return", "return  ", 1))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param(shutil.rmtree, "is not in the store", id="no folder"),
        pytest.param(_remove_manifest, "is not in the store", id="no manifest"),
        pytest.param(_edit_files, "files were changed", id="changed files"),
    ],
)
def test_a_dataset_that_is_not_the_pinned_one_is_refused(
    store: "Store", change: Callable[[Path], Any], said: str
) -> None:
    change(store.root / "dataset")
    with pytest.raises(DatasetMissing, match=said) as caught:
        store.train(store.config())
    assert "Rescan" in caught.value.hint


def test_a_dataset_of_another_revision_is_refused(store: "Store") -> None:
    with pytest.raises(DatasetMissing, match="is not sha256:0000"):
        store.train(store.config(dataset_revision="sha256:" + "0" * 64))


@pytest.mark.parametrize(
    ("train", "holdout", "said"),
    [
        pytest.param([], ["a = 1\n"], "no file to train on", id="nothing to train on"),
        pytest.param(["a = 1\n", "b = 2\n"], ["b = 2\n"], "1 files are both", id="a held-out file that is trained on"),
    ],
)
def test_a_dataset_that_teaches_nothing_or_cheats_is_refused(
    store: "Store", train: list[str], holdout: list[str], said: str
) -> None:
    with pytest.raises(EmptyDataset, match=said):
        store.train(store.config(**store.add_dataset("other", train, holdout)))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        pytest.param({"training": {"sequence_length": 512}}, "training.sequenceLength is 512", id="too long"),
        pytest.param({"lora": LoraOverrides(target_modules=["nowhere"])}, "nowhere", id="a layer that is not there"),
        pytest.param({"training": {"precision": "Float16"}}, "Float16", id="half precision on a CPU"),
    ],
)
def test_parameters_that_do_not_fit_are_refused(store: "Store", changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidParameters, match=said):
        store.train(store.config(**changes))


def test_a_pod_without_the_gpu_that_it_asked_for_says_so(store: "Store", monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceMissing, match="sees none") as caught:
        store.train(store.config(device="cuda"))
    assert caught.value.reason == "StartError"


def test_a_pod_with_fewer_gpus_than_it_asked_for_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert machine.find_device("cuda", 2) == torch.device("cuda")
    with pytest.raises(DeviceMissing, match="asked for 4 GPUs, but PyTorch sees 2"):
        machine.find_device("cuda", 4)


def test_short_memory_halves_the_micro_batch_then_saves_activations_then_fails(
    store: "Store", monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def accumulate(model: Any, batch: Any, rows: int, *_: Any) -> float:
        tried.append((rows, model.get_base_model().is_gradient_checkpointing))
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(fitting, "accumulate", accumulate)
    with pytest.raises(TrainerError, match="too little memory") as caught:
        store.train(store.config())
    assert caught.value.reason == "OutOfMemory"
    assert tried == [(4, False), (2, False), (1, False), (1, True)]


def test_a_step_that_ran_out_of_memory_once_is_done_with_less(store: "Store", monkeypatch: pytest.MonkeyPatch) -> None:
    lora = store.config().lora.model_copy(update={"dropout": 0.0})
    store.train(store.config("whole", lora=lora))
    real, failures = stepping.accumulate, iter([True])

    def accumulate(*arguments: Any) -> float:
        if next(failures, False):
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return real(*arguments)

    monkeypatch.setattr(fitting, "accumulate", accumulate)
    events = store.train(store.config("short", lora=lora))
    assert any("2 sequences at once" in getattr(event, "message", "") for event in events)
    assert store.losses("short") == pytest.approx(store.losses("whole"), abs=1e-5)


@pytest.mark.parametrize(
    "place", ["zeros_like", "clip_grad_norm_"], ids=["of the optimizer's state", "of the optimizer's step"]
)
def test_a_shortage_of_memory_at_the_end_of_the_first_step_takes_less_at_once_too(
    store: "Store", monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    lora = store.config().lora.model_copy(update={"dropout": 0.0})
    store.train(store.config("whole", lora=lora))
    owner: Any = torch.nn.utils if place == "clip_grad_norm_" else torch
    real, calls = getattr(owner, place), itertools.count()

    def fail(*arguments: Any, **more: Any) -> Any:
        # Not the first one: what was taken before stays.
        if next(calls) == (0 if place == "clip_grad_norm_" else 3):
            raise RuntimeError("CUDA error: out of memory")
        return real(*arguments, **more)

    monkeypatch.setattr(fitting, "prepare", _only_here(owner, place, fail, stepping.prepare))
    monkeypatch.setattr(fitting, "apply_gradients", _only_here(owner, place, fail, stepping.apply_gradients))
    events = store.train(store.config("short", lora=lora))
    assert any("2 sequences at once" in getattr(event, "message", "") for event in events)
    assert store.losses("short") == pytest.approx(store.losses("whole"), abs=1e-5)


def _only_here(owner: Any, name: str, value: Any, work: Any) -> Any:
    """The function with something replaced while it runs."""

    def do(*arguments: Any) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(owner, name, value)
            return work(*arguments)

    return do


def test_gradient_checkpointing_changes_no_loss(store: "Store") -> None:
    lora = store.config().lora.model_copy(update={"dropout": 0.0})
    store.train(store.config("kept", lora=lora))
    store.train(store.config("again", lora=lora, training={"gradient_checkpointing": "On"}))
    assert store.losses("again") == pytest.approx(store.losses("kept"), abs=1e-6)


@pytest.mark.parametrize(
    ("config", "length", "expected"),
    [
        pytest.param(LlamaConfig(), 2048, True, id="plain attention"),
        pytest.param(Starcoder2Config(sliding_window=4096), 2048, True, id="a window that is long enough"),
        pytest.param(Starcoder2Config(sliding_window=1024), 2048, False, id="a window that is shorter"),
        pytest.param(Gemma2Config(num_hidden_layers=2), 2048, True, id="some layers with a window"),
        pytest.param(MambaConfig(), 2048, False, id="a state besides attention"),
        pytest.param(Lfm2Config(num_hidden_layers=2, layer_types=["conv", "full_attention"]), 2048, False,
                     id="convolutions"),
        pytest.param(Lfm2MoeConfig(num_hidden_layers=2, layer_types=["full_attention", "conv"]), 2048, False,
                     id="convolutions and experts"),
        pytest.param(MiniMaxConfig(num_hidden_layers=2), 2048, False, id="linear attention"),
        pytest.param(Llama4TextConfig(num_hidden_layers=4), 2048, False, id="attention in chunks"),
        pytest.param(Qwen3Config(num_hidden_layers=2), 2048, True, id="layers of plain attention"),
    ],
)  # fmt: skip
def test_documents_share_a_sequence_only_where_a_mask_keeps_them_apart(
    config: Any, length: int, expected: bool
) -> None:
    assert modelling.can_share_sequences(config, length) is expected
