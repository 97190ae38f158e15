"""What a base model computes while an adapter is trained on it is what it computes where it is served."""

from typing import Any

import pytest
import torch
from codetune_api.finetune import Checkpoints, LoraOverrides, Parameters, TrainingOverrides
from codetune_api.presets import Facts, resolve
from codetune_trainer.train import modelling
from codetune_trainer.train.kernels.attention import DocumentAttention
from codetune_trainer.train.kernels.installing import speed_up_base
from codetune_trainer.train.losses import sum_loss
from codetune_trainer.train.packing import Packed, pack
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
