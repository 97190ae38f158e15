"""LoRA on token embeddings and output head: who gets it, what it learns, and that PEFT alone reads it the same way.

That vLLM serves it as PEFT computes it is tested end to end (`tests/e2e/test_serving_embeddings.py`).
"""

import ast
import json
import re
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from codetune_api.contracts import CheckpointManifest, MergeConfig
from codetune_api.finetune import LoraOverrides
from codetune_bucket.mirroring import Mirror
from codetune_trainer import merge
from codetune_trainer.architectures import EMBEDDINGS, WITH_EMBEDDINGS, check_embeddings, explain_no_embeddings
from codetune_trainer.errors import IncompatibleCheckpoint, InvalidParameters
from codetune_trainer.reporting import Reporter
from codetune_trainer.train.data.packing import IGNORED, Packed, pack
from codetune_trainer.train.kernels.installing import speed_up_adapter
from codetune_trainer.train.model import losses
from codetune_trainer.train.model.losses import sum_loss
from codetune_trainer.train.model.modelling import trainable_weights
from codetune_trainer.train.model.stepping import autocast
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from torch.nn import functional
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, LlamaConfig, Qwen2Config
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

if TYPE_CHECKING:
    from unit.train.conftest import Store

WITH = LoraOverrides(rank=4, dropout=0.0, train_embeddings=True)
TEXT = torch.tensor([[100, 101, 102, 40, 118, 97, 108]])
pytestmark = pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")


@pytest.fixture(params=[False, True], ids=["untied", "tied"])
def model(request: pytest.FixtureRequest, tmp_path: Path, make_model: Any) -> Path:
    """A tiny Llama whose head has weights of its own, or those of the embeddings."""
    folder: Path = make_model(tmp_path / "model", tie_word_embeddings=request.param)
    return folder


def _load(folder: Path, adapter: Path | None = None) -> Any:
    base = AutoModelForCausalLM.from_pretrained(folder)
    return base.eval() if adapter is None else PeftModel.from_pretrained(base, str(adapter)).eval()


def _logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(TEXT).logits
    return found


def _last(store: "Store", run: str = "run") -> Path:
    return store.root / run / "checkpoints" / store.result.latest_checkpoint


# Who gets it


def test_an_adapter_goes_on_embeddings_and_head_when_it_is_asked_for(store: "Store", model: Path) -> None:
    store.model = model
    store.train(store.config(lora=WITH))
    told = store.result.parameters
    assert told.train_embeddings
    assert set(EMBEDDINGS) < set(told.target_modules)
    weights = load_file(_last(store) / "adapter_model.safetensors")
    sizes = {name.removeprefix("base_model.model."): tuple(weight.shape) for name, weight in weights.items()}
    assert sizes.items() >= {
        ("model.embed_tokens.lora_embedding_A", (4, 264)),
        ("model.embed_tokens.lora_embedding_B", (32, 4)),
        ("lm_head.lora_A.weight", (4, 32)),
        ("lm_head.lora_B.weight", (264, 4)),
    }
    assert all("lora_" in name for name in sizes)  # the base model's embeddings are not saved with it
    assert weights["base_model.model.model.embed_tokens.lora_embedding_A"].any()
    assert weights["base_model.model.lm_head.lora_B.weight"].any()


@pytest.mark.parametrize(
    ("expected", "lora"),
    [
        pytest.param(True, {}, id="the preset's"),
        pytest.param(False, {"train_embeddings": False}, id="asked not to"),
        pytest.param(False, {"target_modules": ["q_proj"]}, id="layers that were chosen"),
        pytest.param(True, {"target_modules": ["q_proj"], "train_embeddings": True}, id="besides chosen layers"),
    ],
)
def test_the_preset_has_them_unless_lora_says_otherwise(store: "Store", expected: bool, lora: dict[str, Any]) -> None:
    store.train(store.config(preset="Embeddings", lora=LoraOverrides(rank=2, **lora), training={"max_steps": 2}))
    told = store.result.parameters
    assert told.train_embeddings is expected
    assert set(EMBEDDINGS).issubset(told.target_modules) is expected
    assert not [note for note in told.notes if "mbeddings" in note]


def _other(store: "Store", folder: Path, make_tokenizer: Any) -> None:
    small: dict[str, Any] = {"vocab_size": 264, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1}
    heads: dict[str, Any] = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256}
    AutoModelForCausalLM.from_config(Qwen2Config(**small, **heads)).save_pretrained(str(folder))
    make_tokenizer().save_pretrained(str(folder))
    store.model = folder


def test_in_other_families_the_preset_does_without_and_says_so(
    store: "Store", tmp_path: Path, make_tokenizer: Any
) -> None:
    _other(store, tmp_path / "other", make_tokenizer)
    store.train(store.config(preset="Embeddings", lora=LoraOverrides(rank=2), training={"max_steps": 2}))
    told = store.result.parameters
    assert not told.train_embeddings
    assert "Embeddings are not trained: file:///tiny is a qwen2 model, and vLLM serves" in " ".join(told.notes)


def test_in_other_families_asking_for_them_fails_before_any_text_is_read(
    store: "Store", tmp_path: Path, make_tokenizer: Any
) -> None:
    _other(store, tmp_path / "other", make_tokenizer)
    shutil.rmtree(store.root / "dataset")
    with pytest.raises(InvalidParameters, match=r"lora\.trainEmbeddings is true, but file:///tiny is a qwen2 model"):
        store.train(store.config(lora=WITH))


@pytest.mark.parametrize(
    ("expected", "config"),
    [
        pytest.param("", LlamaConfig(), id="Llama"),
        pytest.param("", LlamaConfig(tie_word_embeddings=True, vocab_size=258_048), id="tied, as large as can be"),
        pytest.param("has 258049 tokens", LlamaConfig(vocab_size=258_049), id="too large a vocabulary"),
        pytest.param("is a qwen2 model", Qwen2Config(), id="Qwen2.5-Coder"),
        *(
            pytest.param(f"is a {kind} model", AutoConfig.for_model(kind), id=kind)
            for kind in ("gemma", "mistral", "starcoder2", "cohere", "gpt_bigcode")
        ),
    ],
)
def test_why_a_model_has_no_adapter_on_them(expected: str, config: Any) -> None:
    found = explain_no_embeddings(config, "hf://org/model")
    assert found == "" if not expected else f"hf://org/model {expected}" in found
    check_embeddings(config, "hf://org/model", asked=False)


_VLLM = find_spec("vllm")
# vLLM's classes have both, but these are multimodal models and their text parts, which it serves by other classes; and
# nemotron_h, whose embeddings have another name in transformers.
_OTHERWISE = {
    "llama4", "llama4_text", "nemotron_h", "qwen3_5", "qwen3_5_moe", "qwen3_5_moe_text", "qwen3_5_text",
}  # fmt: skip


@pytest.mark.skipif(_VLLM is None, reason="vLLM is not installed")
def test_vllm_says_of_its_models_whether_it_serves_lora_on_embeddings_and_head() -> None:
    """Its sources are read: to import it takes longer than all of these tests."""
    found = {kind for kind, name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.items() if _lists_both(str(name))}
    assert found - _OTHERWISE == WITH_EMBEDDINGS
    assert found > _OTHERWISE


def _lists_both(name: str) -> bool:
    assert _VLLM is not None
    folder = Path(str(_VLLM.origin)).parent / "model_executor" / "models"
    named = re.search(rf'"{name}": \(\s*"([\w.]+)",\s*"(\w+)"', (folder / "registry.py").read_text(encoding="utf-8"))
    if named is None or named[1] == "transformers":  # its own class for all models of transformers: no head
        return False
    return set(EMBEDDINGS) <= _read_embedding_modules(folder, named[1], named[2]).keys()


def _read_embedding_modules(folder: Path, module: str, name: str) -> dict[str, str]:
    """What a class says of itself, or the first of its bases that says anything."""
    path = folder / f"{module}.py"
    if not path.is_file():
        return {}
    tree = ast.parse(path.read_text(encoding="utf-8"))
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    imported = {
        alias.asname or alias.name: (node.module.removeprefix("vllm.model_executor.models."), alias.name)
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }
    if name not in classes:
        return _read_embedding_modules(folder, *imported[name]) if name in imported else {}
    for statement in classes[name].body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "embedding_modules":
            said: dict[str, str] = ast.literal_eval(statement.value)
            return said
    for base in classes[name].bases:
        if ast.unparse(base) != "SupportsLoRA" and (
            inherited := _read_embedding_modules(folder, module, ast.unparse(base))
        ):
            return inherited
    return {}


# What it computes


def _adapted(folder: Path, *, dropout: float = 0.0, dtype: torch.dtype = torch.float32) -> Any:
    torch.manual_seed(1)
    config = LoraConfig(
        target_modules=["q_proj", "down_proj", *EMBEDDINGS], init_lora_weights=False, lora_dropout=dropout
    )
    return get_peft_model(AutoModelForCausalLM.from_pretrained(folder, dtype=dtype), config)


def _batch() -> Packed:
    chance = torch.Generator().manual_seed(5)
    sizes = (32, 11, 9, 30, 4, 20, 25, 3)
    return pack([torch.randint(0, 256, (size,), generator=chance).tolist() for size in sizes], 32, padding=257)


def _stock_loss(model: Any, batch: Packed) -> torch.Tensor:
    logits = model(input_ids=batch.tokens, position_ids=batch.positions, attention_mask=batch.mask()).logits
    return functional.cross_entropy(logits.flatten(0, 1), batch.labels.flatten(), ignore_index=IGNORED, reduction="sum")


@pytest.mark.parametrize("chunk", [7, 256])
def test_loss_and_gradients_are_those_of_plain_peft(model: Path, monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(losses, "CHUNK", chunk)
    batch, stock = _batch(), _adapted(model)
    expected = _stock_loss(stock, batch)
    (expected / 3).backward()
    ours = _adapted(model)
    speed_up_adapter(ours)
    found = sum_loss(ours, batch)
    (found / 3).backward()
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    for mine, other in zip(trainable_weights(ours), trainable_weights(stock), strict=True):
        assert mine.grad is not None
        assert other.grad is not None
        assert other.grad.any()
        assert torch.allclose(mine.grad, other.grad, rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        measured = sum_loss(ours, batch)
    assert measured.item() == pytest.approx(expected.item(), rel=1e-6)


def test_in_half_precision_they_are_about_those_in_full(model: Path) -> None:
    batch, stock, ours = _batch(), _adapted(model), _adapted(model, dtype=torch.bfloat16)
    speed_up_adapter(ours)
    expected = _stock_loss(stock, batch)
    expected.backward()
    with autocast("BFloat16", torch.device("cpu")):
        found = sum_loss(ours, batch)
    found.backward()
    assert found.item() == pytest.approx(expected.item(), rel=0.01)
    for mine, other in zip(trainable_weights(ours), trainable_weights(stock), strict=True):
        assert mine.grad is not None
        assert other.grad is not None
        assert mine.dtype == torch.float32
        assert functional.cosine_similarity(mine.grad.flatten(), other.grad.flatten(), dim=0) > 0.98


def test_with_the_adapter_off_the_loss_is_the_base_models(model: Path) -> None:
    ours, batch = _adapted(model), _batch()
    speed_up_adapter(ours)
    with ours.disable_adapter(), torch.no_grad():
        assert sum_loss(ours, batch).item() == pytest.approx(_stock_loss(_load(model), batch).item(), rel=1e-6)


def test_the_head_drops_as_its_own_layer_does(model: Path) -> None:
    """The same random numbers, the same loss: gradients of both are taken at what was dropped."""
    ours, batch = _adapted(model, dropout=0.3), _batch()
    speed_up_adapter(ours)
    wanted = batch.labels != IGNORED
    head = ours.get_base_model().get_output_embeddings()
    hidden = torch.randn(int(wanted.sum()), 32)
    ways: list[Callable[[torch.Tensor], torch.Tensor]] = [
        lambda x: losses._sum_by_head(head, x, batch.labels[wanted]),
        lambda x: functional.cross_entropy(head(x), batch.labels[wanted], reduction="sum"),
    ]
    results = []
    for loss_of in ways:
        x = hidden.clone().requires_grad_()
        torch.manual_seed(3)
        loss = loss_of(x)
        loss.backward()
        results.append([loss, x.grad, *(weight.grad.clone() for weight in head.parameters() if weight.requires_grad)])
        ours.zero_grad()
    for mine, other in zip(*results, strict=True):
        assert torch.allclose(mine, other, rtol=1e-4, atol=1e-4)


def test_steps_are_those_of_a_plain_peft_loop(model: Path) -> None:
    batch, found = _batch(), []
    for is_ours in (True, False):
        tuned = _adapted(model)
        if is_ours:
            speed_up_adapter(tuned)
        optimizer = torch.optim.AdamW(trainable_weights(tuned), lr=0.01)
        for _ in range(4):
            loss = (sum_loss if is_ours else _stock_loss)(tuned, batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            found.append(loss.item())
    assert found[:4] == pytest.approx(found[4:], rel=1e-4)
    assert found[3] < 0.97 * found[0]


# What comes of it


def test_plain_peft_measures_the_held_out_loss_that_was_reported(store: "Store", model: Path) -> None:
    store.model = model
    store.train(store.config(lora=WITH))
    tuned, tokenizer = _load(model, _last(store)), AutoTokenizer.from_pretrained(model)
    total, count = 0.0, 0
    for line in (store.root / "dataset" / "files.jsonl").read_text().splitlines():
        row = json.loads(line)
        tokens = [*tokenizer(row["text"]).input_ids, 257]
        for start in range(0, len(tokens), 64) if row["split"] == "holdout" else ():
            piece = torch.tensor([tokens[start : start + 64]])
            with torch.no_grad():
                total += tuned(input_ids=piece, labels=piece).loss.item() * (piece.shape[1] - 1)
            count += piece.shape[1] - 1
    latest = next(found for found in store.result.checkpoints if found.name == store.result.latest_checkpoint)
    assert total / count == pytest.approx(latest.holdout_loss, abs=1e-5)


def test_the_base_model_stays_as_it_was(store: "Store", model: Path) -> None:
    store.model, before = model, (model / "model.safetensors").read_bytes()
    store.train(store.config(lora=WITH))
    assert (model / "model.safetensors").read_bytes() == before


def test_wherever_it_is_stopped_a_run_goes_on_as_if_nothing_had_happened(store: "Store", model: Path) -> None:
    store.model = model
    store.train(store.config("whole", lora=WITH))
    whole = load_file(_last(store, "whole") / "adapter_model.safetensors")
    config = store.config(lora=WITH)
    store.train(config, store.stop_after(24))
    assert store.status == 143
    store.train(config)
    parts = load_file(_last(store) / "adapter_model.safetensors")
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


@pytest.mark.timeout(300)
def test_processes_that_share_the_base_models_weights_have_the_same_losses(store: "Store", model: Path) -> None:
    store.model = model
    store.train(store.config("alone", lora=WITH))
    process = store.start(store.config("spread", lora=WITH, gpus=2, training={"sharding": "On"}))
    assert process.end() == 0, process.output
    assert store.losses("spread") == pytest.approx(store.losses("alone"), abs=1e-5)


def test_a_checkpoint_without_them_is_of_another_shape(store: "Store") -> None:
    store.train(store.config())
    with pytest.raises(IncompatibleCheckpoint, match="target_modules"):
        store.train(store.config(lora=WITH))


def test_merging_gives_what_peft_computes_beside_the_base(store: "Store", model: Path, tmp_path: Path) -> None:
    """Tied weights become two: PEFT alone would put both updates into the one weight that both layers share."""
    store.model = model
    store.train(store.config("team/run", lora=WITH))
    adapter = f"team/run/checkpoints/{store.result.latest_checkpoint}"
    manifest = CheckpointManifest.model_validate_json((store.root / adapter / "MANIFEST.json").read_bytes())
    config = MergeConfig(
        nonce="n" * 16,
        namespace="team",
        name="tuned",
        checkpoint=store.result.latest_checkpoint,
        adapter=adapter,
        digest=manifest.digest(),
        base_model="file:///tiny",
        output="team/run/merged/last",
    )
    folder = merge.merge(config, model, Mirror(store.root), Reporter(config.nonce))
    beside = _logits(_load(model, store.root / adapter))
    assert torch.allclose(_logits(_load(folder)), beside, atol=1e-4)
    assert not torch.allclose(beside, _logits(_load(model)), atol=1e-2)
    assert json.loads((folder / "config.json").read_text())["tie_word_embeddings"] is False
    assert {"lm_head.weight", "model.embed_tokens.weight"} <= load_file(folder / "model.safetensors").keys()
