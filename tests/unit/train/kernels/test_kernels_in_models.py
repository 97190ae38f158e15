"""Whole tiny models of several families, with the kernels and without: same loss, same gradients, same adapter.

What a family has that the kernels do not know (Conv1D layers, DoRA, capped logits, a window) stays stock in it.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from codetune_trainer.train.data.packing import Packed, pack
from codetune_trainer.train.kernels import attention
from codetune_trainer.train.kernels.attention import DocumentAttention
from codetune_trainer.train.kernels.installing import speed_up_adapter, speed_up_base
from codetune_trainer.train.kernels.lora import FusedLinear
from codetune_trainer.train.model import modelling, stepping
from codetune_trainer.train.model.losses import sum_loss
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

LENGTH = 24
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen2": {},  # bias on query, key and value
    "qwen3": {"head_dim": 8},  # norms inside attention
    "starcoder2": {"use_bias": True},  # LayerNorm, gelu, bias everywhere
    "gemma": {"head_dim": 8, "hidden_activation": "gelu_pytorch_tanh"},  # norm weights count from one
    "mistral": {"sliding_window": None},
    "granite": {"attention_multiplier": 0.3, "residual_multiplier": 0.5},
}


@pytest.fixture(autouse=True)
def _stock_rotation_afterwards() -> Iterator[None]:
    """The rotation is a global of each family's module."""
    yield
    for name, module in list(sys.modules.items()):
        wrapped = vars(module).get("apply_rotary_pos_emb") if name.startswith("transformers.models.") else None
        if hasattr(wrapped, "codetune_stock"):
            module.apply_rotary_pos_emb = wrapped.codetune_stock  # type: ignore[attr-defined]


def _base(family: str, settings: dict[str, Any]) -> Any:
    shape: dict[str, Any] = {"vocab_size": 60, "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2}
    shape |= {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64, "pad_token_id": 0}
    config = AutoConfig.for_model(family, **{**shape, "initializer_range": 0.3, **settings})
    torch.manual_seed(0)
    model: Any = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
    with torch.no_grad():
        for parameter in model.parameters():  # norms and biases too, so that none of them is the identity
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.requires_grad_(False)


def _adapted(base: Any, **settings: Any) -> Any:
    torch.manual_seed(1)
    options: dict[str, Any] = {"r": 3, "target_modules": "all-linear", "lora_dropout": 0.0, "task_type": "CAUSAL_LM"}
    return get_peft_model(base, LoraConfig(**options | settings, init_lora_weights=False))


def _batch() -> Packed:
    """Several documents a sequence, and padding."""
    chance = torch.Generator().manual_seed(5)
    sizes = (24, 11, 9, 5, 3, 20)
    return pack([torch.randint(1, 60, (size,), generator=chance).tolist() for size in sizes], LENGTH, padding=0)


def _learn(model: Any, batch: Packed) -> tuple[float, dict[str, torch.Tensor]]:
    model.zero_grad()
    loss = sum_loss(model, batch)
    loss.backward()
    return loss.item(), {
        name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None
    }


def _compare(found: tuple[float, dict[str, torch.Tensor]], wanted: tuple[float, dict[str, torch.Tensor]]) -> None:
    assert found[0] == pytest.approx(wanted[0], rel=1e-5)
    assert found[1].keys() == wanted[1].keys()
    for name, gradient in wanted[1].items():
        assert torch.allclose(found[1][name], gradient, rtol=1e-3, atol=1e-4 * gradient.abs().max().item()), name


def _fast(family: str, settings: dict[str, Any], **lora: Any) -> Any:
    base = _base(family, settings)
    speed_up_base(base, shared=True)
    model = _adapted(base, **lora)
    speed_up_adapter(model)
    return model


@pytest.mark.parametrize("family", FAMILIES)
def test_loss_and_gradients_are_those_of_the_stock_model(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = _learn(_adapted(_base(family, FAMILIES[family])), _batch())
    model = _fast(family, FAMILIES[family])
    calls = _count_calls(monkeypatch)
    _compare(_learn(model, _batch()), wanted)
    assert calls == [2]  # the kernel itself, once a layer
    layers = [module for module in model.modules() if type(module).__name__ == "Linear" and hasattr(module, "lora_A")]
    assert not layers  # all of them are fused


@pytest.mark.parametrize("family", ["llama", "qwen2", "starcoder2", "gemma"])
def test_in_bf16_they_are_as_close_to_float32_as_the_stock_model_is(family: str) -> None:
    exact, _ = _learn(_adapted(_base(family, FAMILIES[family])), _batch())
    found = []
    for fast in (False, True):
        base = _base(family, FAMILIES[family]).to(torch.bfloat16)
        if fast:
            speed_up_base(base, shared=True)
        model = _adapted(base)
        if fast:
            speed_up_adapter(model)
        for weight in modelling.trainable_weights(model):
            weight.data = weight.data.float()
        with stepping.autocast("BFloat16", torch.device("cpu")):
            found.append(_learn(model, _batch()))
    (theirs, others), (ours, gradients) = found
    assert theirs == pytest.approx(exact, rel=0.02)
    assert ours == pytest.approx(exact, rel=0.02)
    mine, other = (torch.cat([source[name].flatten() for name in others]) for source in (gradients, others))
    assert torch.nn.functional.cosine_similarity(mine, other, dim=0) > 0.98
    assert mine.dtype == torch.float32


def _count_calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    calls, apply = [0], DocumentAttention.apply

    def counting(*arguments: Any) -> Any:
        calls[0] += 1
        return apply(*arguments)  # type: ignore[no-untyped-call]

    monkeypatch.setattr(DocumentAttention, "apply", counting)
    return calls


@pytest.mark.parametrize(
    ("family", "replaced"),
    [
        pytest.param("llama", {"norms": 5, "gates": 2, "rotary": True}, id="Llama: all"),
        pytest.param("gemma", {"norms": 5, "gates": 2, "rotary": True}, id="Gemma: all"),
        pytest.param("starcoder2", {"norms": 0, "gates": 0, "rotary": True}, id="StarCoder2: LayerNorm and plain MLP"),
        pytest.param("qwen3", {"norms": 9, "gates": 2, "rotary": True}, id="Qwen3: norms of heads too"),
    ],
)
def test_what_is_replaced_in_a_family(family: str, replaced: dict[str, Any]) -> None:
    assert speed_up_base(_base(family, FAMILIES[family]), shared=True) == {**replaced, "attention": attention.NAME}


def test_gradient_checkpointing_computes_the_same_again() -> None:
    wanted = _learn(_fast("llama", {}), _batch())
    model = _fast("llama", {})
    modelling.enable_checkpointing(model)
    _compare(_learn(model, _batch()), wanted)


def test_dropout_is_the_same_when_activations_are_computed_again() -> None:
    results = []
    for checkpointing in (False, True):
        model = _fast("llama", {}, lora_dropout=0.5).train()
        if checkpointing:
            modelling.enable_checkpointing(model)
        torch.manual_seed(9)
        results.append(_learn(model, _batch()))
    _compare(*results)


@pytest.mark.parametrize(
    ("family", "settings", "lora"),
    [
        pytest.param(
            "gpt2", {"n_positions": 64, "n_embd": 32, "n_layer": 2, "n_head": 4}, {"fan_in_fan_out": True}, id="Conv1D"
        ),
        pytest.param("llama", {}, {"use_dora": True}, id="DoRA"),
        pytest.param("qwen2", {}, {"lora_bias": True, "target_modules": ["q_proj"]}, id="an adapter with biases"),
        pytest.param(
            "gemma2", {"head_dim": 8, "final_logit_softcapping": 5.0, "sliding_window": 64}, {}, id="capped logits"
        ),
        pytest.param("cohere", {}, {}, id="interleaved rotation, norms that subtract the mean"),
    ],
)
def test_what_the_kernels_do_not_know_stays_stock(family: str, settings: Any, lora: Any) -> None:
    wanted = _learn(_adapted(_base(family, settings), **lora), _batch())
    _compare(_learn(_fast(family, settings, **lora), _batch()), wanted)


def test_a_window_shorter_than_the_sequence_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"sliding_window": 6}
    batch = pack([list(range(1, 21)), list(range(30, 54))], LENGTH, padding=0, shared=False)
    wanted = _learn(_adapted(_base("mistral", settings)), batch)
    base = _base("mistral", settings)
    speed_up_base(base, shared=modelling.can_share_sequences(base.config, LENGTH))
    model = _adapted(base)
    speed_up_adapter(model)
    calls = _count_calls(monkeypatch)
    _compare(_learn(model, batch), wanted)
    assert calls == [0]


def test_the_base_shows_through_while_the_adapter_is_off() -> None:
    base = _base("llama", {})
    tokens = torch.arange(1, 20)[None]
    with torch.no_grad():
        wanted = base(input_ids=tokens).logits
        model = _fast("llama", {})
        tuned = model(input_ids=tokens).logits
        with model.disable_adapter():
            assert torch.allclose(model(input_ids=tokens).logits, wanted, atol=1e-4)
    assert not torch.allclose(tuned, wanted, atol=1e-2)


def test_generation_uses_stock_attention_and_gives_the_same_tokens() -> None:
    tokens = torch.tensor([[0, 0, 7, 9, 3], [5, 6, 7, 8, 9]])
    mask = (tokens > 0).long()
    options: dict[str, Any] = {"max_new_tokens": 6, "do_sample": False, "attention_mask": mask}
    stock = _adapted(_base("llama", {})).eval().generate(input_ids=tokens, **options)
    assert torch.equal(_fast("llama", {}).eval().generate(input_ids=tokens, **options), stock)


def test_the_adapter_is_one_that_peft_alone_loads(tmp_path: Path) -> None:
    model = _fast("llama", {}).eval()
    assert any(isinstance(module, FusedLinear) for module in model.modules())
    model.save_pretrained(str(tmp_path))
    tokens = torch.arange(1, 20)[None]
    with torch.no_grad():
        loaded = PeftModel.from_pretrained(_base("llama", {}), str(tmp_path)).eval()
        assert not any(isinstance(module, FusedLinear) for module in loaded.modules())
        assert torch.allclose(loaded(input_ids=tokens).logits, model(input_ids=tokens).logits, atol=1e-4)
        merged = model.merge_and_unload()
        assert torch.allclose(loaded(input_ids=tokens).logits, merged(input_ids=tokens).logits, atol=1e-4)


def test_a_norm_of_another_formula_is_left_alone() -> None:
    class OddRMSNorm(torch.nn.Module):
        """Three times what it should be."""

        def __init__(self) -> None:
            super().__init__()
            self.weight, self.eps = torch.nn.Parameter(torch.ones(32), requires_grad=False), 1e-6

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 3 * torch.nn.functional.rms_norm(x, (32,), self.weight, self.eps)

    base = _base("llama", {})
    base.model.norm = OddRMSNorm()
    assert speed_up_base(base, shared=True)["norms"] == 4


@pytest.mark.parametrize(
    "settings", [pytest.param({"hidden_act": "relu"}, id="relu"), pytest.param({"hidden_act": "tanh"}, id="tanh")]
)
def test_an_activation_that_is_not_known_is_left_alone(settings: dict[str, Any]) -> None:
    assert speed_up_base(_base("llama", settings), shared=True)["gates"] == 0
