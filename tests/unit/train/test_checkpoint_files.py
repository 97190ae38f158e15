"""A checkpoint on disk: whole or not there, without pickles, and honest about a full disk."""

import errno
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from codetune_trainer.train import checkpoints
from peft import LoraConfig, get_peft_model
from safetensors import SafetensorError
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

if TYPE_CHECKING:
    from unit.train.conftest import Store


def test_a_checkpoint_holds_pefts_files_state_and_a_manifest_and_nothing_else(store: "Store") -> None:
    store.train(store.config())
    folder = store.root / "run" / "checkpoints" / "step-000006"
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()) == [
        "MANIFEST.json",
        "adapter_config.json",
        "adapter_model.safetensors",
        "state/state.json",
        "state/state.safetensors",
    ]


def test_a_failure_while_writing_leaves_no_checkpoint_behind(store: "Store", monkeypatch: pytest.MonkeyPatch) -> None:
    real = save_file

    def fill_disk(tensors: Any, path: Path) -> None:
        real(tensors, path)
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(checkpoints, "save_file", fill_disk)
    with pytest.raises(OSError, match="No space left") as caught:
        store.train(store.config())
    assert caught.value.errno == errno.ENOSPC
    assert store.checkpoints() == [".step-000002.part"]
    monkeypatch.setattr(checkpoints, "save_file", real)
    store.train(store.config())
    assert store.checkpoints() == ["step-000004", "step-000006"]


def test_another_fault_of_safetensors_stays_what_it_is(store: "Store", monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise SafetensorError("Error while serializing: something else")

    monkeypatch.setattr(checkpoints, "save_file", fail)
    with pytest.raises(SafetensorError):
        store.train(store.config())


def test_on_a_gpu_a_checkpoint_holds_its_random_state_too(
    store: "Store", tiny_model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_model), LoraConfig(target_modules=["q_proj"]))
    optimizer = torch.optim.AdamW(model.parameters())
    at, restored = torch.arange(16, dtype=torch.uint8), []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda: at)
    monkeypatch.setattr(torch.cuda, "set_rng_state", restored.append)
    identity = checkpoints.Identity("file:///tiny", store.revision, 8, frozenset(["q_proj"]))
    manifest = checkpoints.save(tmp_path / "saved", model, optimizer, checkpoints.State(step=1), identity, None)
    folder = tmp_path / "saved" / manifest.name
    checkpoints.restore(folder, model, optimizer)
    assert [state.tolist() for state in restored] == [at.tolist()]
    # Whoever goes on without a GPU takes the rest.
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    before = torch.get_rng_state()
    torch.rand(1)
    checkpoints.restore(folder, model, optimizer)
    assert torch.equal(torch.get_rng_state(), before)
    assert len(restored) == 1


@pytest.mark.parametrize(
    ("keep", "best", "expected"),
    [
        pytest.param(1, "", ["step-000030", "step-000020", "step-000010"], id="only the latest"),
        pytest.param(1, "step-000020", ["step-000030", "step-000010"], id="and the best"),
        pytest.param(3, "step-000040", ["step-000010"], id="the best is among the latest"),
        pytest.param(9, "", [], id="fewer than are kept"),
    ],
)
def test_which_checkpoints_go(keep: int, best: str, expected: list[str]) -> None:
    names = [f"step-{step:06d}" for step in (10, 40, 20, 30)]
    assert checkpoints.choose_to_remove(names, keep, best) == expected


def test_checkpoints_go_by_their_steps_beyond_a_million_too(tmp_path: Path) -> None:
    names = ["step-1000200", "step-1000000", "step-999800", "step-000010"]
    assert checkpoints.choose_to_remove(sorted(names), 2, "") == names[2:]
    for name in names:
        (tmp_path / name).mkdir()
    assert [path.name for path in checkpoints.list_checkpoints(tmp_path)] == names
