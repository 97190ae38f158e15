"""A merged model in the store: what it computes is held against PEFT's own merging, and half a one never counts."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from codetune_api.contracts import CheckpointManifest, MergeConfig, MergedManifest
from codetune_api.finetune import LoraOverrides
from codetune_bucket.mirroring import Mirror
from codetune_trainer import merge
from codetune_trainer.errors import DiskFull, IncompatibleCheckpoint, PickledWeights
from codetune_trainer.manifests import is_intact
from codetune_trainer.reporting import Reporter
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

if TYPE_CHECKING:
    from unit.train.conftest import Store

RUN = "team/finetunes/tuned/uid"
TEXT = torch.tensor([[100, 101, 102, 40, 118, 97, 108]])


@pytest.fixture
def trained(store: "Store") -> "Store":
    """A store with a finished run that has two checkpoints."""
    store.train(store.config(RUN, lora=LoraOverrides(rank=4, dropout=0.0)))
    return store


def config_for(store: "Store", checkpoint: str, **changes: Any) -> MergeConfig:
    adapter = f"{RUN}/checkpoints/{checkpoint}"
    manifest = CheckpointManifest.model_validate_json((store.root / adapter / "MANIFEST.json").read_bytes())
    fields: dict[str, Any] = {
        "nonce": "n" * 16,
        "namespace": "team",
        "name": "tuned",
        "checkpoint": checkpoint,
        "adapter": adapter,
        "digest": manifest.digest(),
        "base_model": "file:///tiny",
        "output": f"{RUN}/merged/{checkpoint}",
    }
    return MergeConfig(**{**fields, **changes})


def run(store: "Store", config: MergeConfig, model: Path | None = None) -> Path:
    return merge.merge(config, model or store.model, Mirror(store.root), Reporter(config.nonce))


def last(store: "Store") -> str:
    return store.result.latest_checkpoint


def load(folder: Path, **more: Any) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, **more)


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.eval()(TEXT).logits
    return found


def adapter_folder(store: "Store", tmp_path: Path) -> Path:
    """The checkpoint's adapter as PEFT knows it."""
    folder = tmp_path / "adapter"
    folder.mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copyfile(store.root / RUN / "checkpoints" / last(store) / name, folder / name)
    return folder


def test_it_computes_what_pefts_own_merging_gives(trained: "Store", tmp_path: Path) -> None:
    folder = run(trained, config_for(trained, last(trained)))
    merged = logits(load(folder))
    adapter = adapter_folder(trained, tmp_path)
    expected = logits(PeftModel.from_pretrained(load(trained.model), adapter).merge_and_unload())
    assert torch.equal(merged, expected)
    beside = logits(PeftModel.from_pretrained(load(trained.model), adapter))
    assert torch.allclose(merged, beside, atol=1e-4)
    assert not torch.allclose(merged, logits(load(trained.model)), atol=1e-2)


def test_it_keeps_the_precision_of_the_base_model(trained: "Store", tmp_path: Path) -> None:
    base = tmp_path / "half"
    load(trained.model, dtype=torch.bfloat16).save_pretrained(base)
    AutoTokenizer.from_pretrained(trained.model).save_pretrained(base)
    folder = run(trained, config_for(trained, last(trained)), base)
    merged = load(folder, dtype="auto")
    assert merged.dtype == torch.bfloat16
    adapter = adapter_folder(trained, tmp_path)
    expected = PeftModel.from_pretrained(load(base, dtype="auto"), adapter).merge_and_unload()
    assert torch.equal(logits(merged), logits(expected))


def test_it_is_whole_and_has_all_that_the_base_model_has(trained: "Store") -> None:
    before = {path.name: path.read_bytes() for path in trained.model.iterdir()}
    folder = run(trained, config_for(trained, last(trained)))
    manifest = MergedManifest.model_validate_json((folder / "MANIFEST.json").read_bytes())
    assert manifest.files.keys() | {"MANIFEST.json"} == {path.name for path in folder.iterdir()}
    assert is_intact(folder, manifest.files)
    assert (manifest.checkpoint, manifest.base_model) == (last(trained), "file:///tiny")
    assert manifest.files.keys() >= before.keys()
    tokens = [AutoTokenizer.from_pretrained(place)("def add(a):").input_ids for place in (folder, trained.model)]
    assert tokens[0] == tokens[1]
    assert {path.name: path.read_bytes() for path in trained.model.iterdir()} == before


def test_code_of_the_base_model_and_its_card_are_left_out(trained: "Store", tmp_path: Path) -> None:
    base = shutil.copytree(trained.model, tmp_path / "base")
    for name in ("modeling_own.py", "README.md", "pytorch_model.bin", ".hidden.json"):
        (base / name).write_text("x")
    (base / "original").mkdir()
    folder = run(trained, config_for(trained, last(trained)), base)
    names = {path.name for path in folder.iterdir()}
    assert not names & {"modeling_own.py", "README.md", "pytorch_model.bin", ".hidden.json", "original"}


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param('{"temperature": 0.2, "top_p": 0.9, "eos_token_id": [257, 3]}', id="that contradict each other"),
        pytest.param(None, id="none"),
    ],
)
def test_generation_settings_are_those_of_the_base_model(
    trained: "Store", tmp_path: Path, settings: str | None
) -> None:
    base = shutil.copytree(trained.model, tmp_path / "base")
    (base / "generation_config.json").unlink()
    if settings is not None:
        (base / "generation_config.json").write_text(settings)
    found = run(trained, config_for(trained, last(trained)), base) / "generation_config.json"
    assert (found.read_text() if found.exists() else None) == settings


def test_another_attempt_finds_it_done(trained: "Store", tmp_path: Path) -> None:
    config = config_for(trained, last(trained))
    folder = run(trained, config)
    assert run(trained, config, tmp_path / "no model is needed") == folder


def test_one_that_is_not_whole_is_made_anew(trained: "Store") -> None:
    config = config_for(trained, last(trained))
    folder = run(trained, config)
    (folder / "model.safetensors").write_bytes(b"half")
    assert is_intact(
        run(trained, config), MergedManifest.model_validate_json((folder / "MANIFEST.json").read_bytes()).files
    )


def test_a_run_keeps_one_merged_model(trained: "Store") -> None:
    first, second = sorted(entry.name for entry in trained.result.checkpoints)[:2]
    run(trained, config_for(trained, first))
    (trained.root / RUN / "merged" / ".step-000002.half").mkdir()
    run(trained, config_for(trained, second))
    assert [path.name for path in (trained.root / RUN / "merged").iterdir()] == [second]


def wrong_digest(store: "Store") -> MergeConfig:
    return config_for(store, last(store), digest="sha256:" + "0" * 64)


def pruned(store: "Store") -> MergeConfig:
    config = config_for(store, last(store))
    shutil.rmtree(store.root / config.adapter)
    return config


def damaged(store: "Store") -> MergeConfig:
    config = config_for(store, last(store))
    (store.root / config.adapter / "adapter_model.safetensors").write_bytes(b"other")
    return config


@pytest.mark.parametrize(
    ("said", "make"),
    [
        pytest.param("not those that its digest", wrong_digest, id="another digest"),
        pytest.param("not those that its digest", damaged, id="other weights"),
        pytest.param("not in the store any more", pruned, id="pruned meanwhile"),
    ],
)
def test_an_adapter_that_is_not_the_one_that_was_meant_is_refused(trained: "Store", said: str, make: Any) -> None:
    with pytest.raises(IncompatibleCheckpoint, match=said):
        run(trained, make(trained))


def test_an_adapter_of_another_base_model_is_refused(trained: "Store", tmp_path: Path) -> None:
    other = tmp_path / "wide"
    config = load(trained.model).config
    config.hidden_size = 64
    AutoModelForCausalLM.from_config(config).save_pretrained(other)
    with pytest.raises(IncompatibleCheckpoint, match="does not go into file:///tiny"):
        run(trained, config_for(trained, last(trained)), other)
    assert list((trained.root / RUN / "merged").iterdir()) == []


def test_a_base_model_in_pickles_is_not_loaded(trained: "Store", tmp_path: Path) -> None:
    base = shutil.copytree(trained.model, tmp_path / "base")
    (base / "model.safetensors").rename(base / "pytorch_model.bin")
    with pytest.raises(PickledWeights):
        run(trained, config_for(trained, last(trained)), base)


def test_a_store_without_room_is_told_first(trained: "Store", tmp_path: Path) -> None:
    base = shutil.copytree(trained.model, tmp_path / "base")
    with (base / "model.safetensors").open("r+b") as sparse:
        sparse.truncate(2**43)
    with pytest.raises(DiskFull, match="GB left") as caught:
        run(trained, config_for(trained, last(trained)), base)
    assert "codetune-artifacts" in caught.value.hint
