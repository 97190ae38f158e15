"""What a base model computes while an adapter is trained on it is what it computes where it is served."""

from pathlib import Path
from typing import Any

import pytest
import torch
from codetune_api.finetune import Checkpoints, LoraOverrides, Parameters, TrainingOverrides
from codetune_api.presets import Facts, resolve
from codetune_trainer.train.data.packing import Packed, pack
from codetune_trainer.train.kernels.attention import DocumentAttention
from codetune_trainer.train.kernels.installing import speed_up_base
from codetune_trainer.train.model import modelling
from codetune_trainer.train.model.losses import sum_loss, token_losses
from transformers import AutoConfig, AutoModelForCausalLM

LENGTH = 24
SHAPE: dict[str, Any] = {
    "vocab_size": 60,
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "initializer_range": 0.3,
}
GPT = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "vocab_size": 60, "pad_token_id": 0}
DROPOUTS: dict[str, dict[str, Any]] = {
    "llama": {**SHAPE, "attention_dropout": 0.3},
    "qwen2": {**SHAPE, "attention_dropout": 0.3},
    "starcoder2": {**SHAPE, "attention_dropout": 0.3, "residual_dropout": 0.3, "embedding_dropout": 0.3},
    "phi": {**SHAPE, "num_key_value_heads": 4, "attention_dropout": 0.3, "resid_pdrop": 0.3, "embd_pdrop": 0.3},
    "phi3": {**SHAPE, "attention_dropout": 0.3, "resid_pdrop": 0.3, "embd_pdrop": 0.3},
    "falcon": {**SHAPE, "hidden_dropout": 0.3, "attention_dropout": 0.3},
    "bloom": {**SHAPE, "n_head": 4, "n_layer": 2, "hidden_dropout": 0.3, "attention_dropout": 0.3},
    "gpt_neox": {**SHAPE, "hidden_dropout": 0.3, "attention_dropout": 0.3},
    "gpt_bigcode": {**GPT, "resid_pdrop": 0.3, "embd_pdrop": 0.3, "attn_pdrop": 0.3},
    "opt": {
        **SHAPE,
        "ffn_dim": 40,
        "word_embed_proj_dim": 32,
        "dropout": 0.3,
        "attention_dropout": 0.3,
        "layerdrop": 0.3,
    },
    "mpt": {
        **{"d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 64, "vocab_size": 60, "pad_token_id": 0},
        **{"resid_pdrop": 0.3, "emb_pdrop": 0.3},
    },
}


def _base(family: str, settings: dict[str, Any], implementation: str = "sdpa") -> Any:
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **settings)
    try:
        model: Any = AutoModelForCausalLM.from_config(config, attn_implementation=implementation)
    except ValueError:  # no sdpa in it
        model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    return model.requires_grad_(False)


def _parameters(config: Any, dropout: float = 0.0) -> Parameters:
    modules = modelling.linear_modules(config, "x")
    facts = Facts(10_000, False, "cpu", False, 64, modules)
    training = TrainingOverrides(sequence_length=64, batch_tokens=64)
    return resolve("Smaller", LoraOverrides(rank=2, dropout=dropout), training, Checkpoints(), facts)


def _batch(*, shared: bool = True) -> Packed:
    chance = torch.Generator().manual_seed(5)
    sizes = (24, 11, 9, 5, 3, 20)
    pieces = [torch.randint(1, 60, (size,), generator=chance).tolist() for size in sizes]
    return pack(pieces, LENGTH, padding=0, shared=shared)


@pytest.mark.filterwarnings("ignore:`torch.jit.script`:DeprecationWarning")  # GPTBigCode's module, when it is loaded
@pytest.mark.parametrize("family", DROPOUTS)
def test_the_bases_own_dropout_is_off_in_training(family: str) -> None:
    base = _base(family, DROPOUTS[family])
    model = modelling.add_adapter(base, _parameters(base.config), "x")
    # Files on their own: some of these families know no mask of ours.
    batch = _batch(shared=False)
    wanted = sum_loss(model.eval(), batch).item()
    found = [sum_loss(model.train(), batch).item() for _ in range(4)]
    assert found == pytest.approx([wanted] * 4, rel=1e-6)


def test_the_adapters_dropout_stays() -> None:
    base = _base("starcoder2", DROPOUTS["starcoder2"])
    model = modelling.add_adapter(base, _parameters(base.config, dropout=0.5), "x").train()
    with torch.no_grad():  # a fresh adapter changes nothing, dropped or not
        for weight in modelling.trainable_weights(model):
            weight.add_(0.1)
    assert len({sum_loss(model, _batch()).item() for _ in range(3)}) == 3


def test_the_attention_kernel_serves_a_base_that_publishes_dropout(monkeypatch: pytest.MonkeyPatch) -> None:
    base = _base("starcoder2", DROPOUTS["starcoder2"])
    speed_up_base(base, shared=True)
    model = modelling.add_adapter(base, _parameters(base.config), "x").train()
    calls, apply = [], DocumentAttention.apply

    def counting(*arguments: Any) -> Any:
        calls.append(1)
        return apply(*arguments)  # type: ignore[no-untyped-call]

    monkeypatch.setattr(DocumentAttention, "apply", counting)
    sum_loss(model, _batch())
    assert len(calls) == 2  # once a layer


CAPPED = {**SHAPE, "head_dim": 8, "attn_logit_softcapping": 2.0, "sliding_window": 64, "initializer_range": 1.0}


def _capped(tmp_path: Path, **settings: Any) -> Any:
    """A model with scores far beyond its cap, as training loads it."""
    _base("gemma2", {**CAPPED, **settings}, "eager").save_pretrained(str(tmp_path / "capped"))
    return modelling.load_base(tmp_path / "capped", "x", "Float32", torch.device("cpu"))


@torch.no_grad()
def _eager_losses(document: list[int], settings: dict[str, Any]) -> torch.Tensor:
    """By transformers alone: one document, its logits."""
    base = _base("gemma2", {**CAPPED, **settings}, "eager").eval()
    logits = base(input_ids=torch.tensor([document])).logits[0, :-1]
    return torch.nn.functional.cross_entropy(logits, torch.tensor(document[1:]), reduction="none")


@pytest.mark.parametrize("shared", [True, False], ids=["packed", "a document a sequence"])
@pytest.mark.parametrize("head", [30.0, None], ids=["capped logits", "plain logits"])
def test_capped_attention_scores_are_capped_in_training(tmp_path: Path, shared: bool, head: float | None) -> None:
    settings = {"final_logit_softcapping": head}
    base = _capped(tmp_path, **settings)
    speed_up_base(base, shared=shared)
    batch = _batch(shared=shared)
    wanted = torch.cat([_eager_losses(_cut(batch, span), settings) for span in batch.spans()])
    assert torch.allclose(token_losses(base, batch), wanted, rtol=1e-4, atol=1e-4)
    model = modelling.add_adapter(base, _parameters(base.config), "x").train()
    loss = sum_loss(model, batch)
    assert loss.item() == pytest.approx(wanted.sum().item(), rel=1e-5)
    loss.backward()
    gradients = [weight.grad for weight in modelling.trainable_weights(model)]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)


def _cut(batch: Packed, span: tuple[int, int, int]) -> list[int]:
    row, start, stop = span
    found: list[int] = batch.tokens[row, start:stop].tolist()
    return found


def test_a_model_of_that_family_without_a_cap_takes_the_fast_attention(tmp_path: Path) -> None:
    base = _capped(tmp_path, attn_logit_softcapping=None)
    assert base.config._attn_implementation == "sdpa"


def test_in_bf16_a_capped_model_keeps_its_documents_apart(tmp_path: Path) -> None:
    base = _capped(tmp_path).to(torch.bfloat16)
    batch = _batch()
    whole = token_losses(base, batch)
    alone = torch.cat([token_losses(base, pack([_cut(batch, span)], LENGTH, padding=0)) for span in batch.spans()])
    assert torch.allclose(whole, alone, rtol=0.02, atol=0.05)
