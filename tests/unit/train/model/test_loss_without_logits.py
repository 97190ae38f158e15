"""The loss that never holds all logits, against torch's own cross-entropy, and steps against one big batch."""

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from codetune_trainer.train.data.packing import IGNORED, Packed, pack
from codetune_trainer.train.model import losses, stepping
from codetune_trainer.train.model.heads import has_plain_logits
from codetune_trainer.train.model.losses import FrozenHeadLoss, sum_loss
from codetune_trainer.train.model.modelling import trainable_weights
from peft import LoraConfig, get_peft_model
from torch.nn import functional
from transformers import AutoConfig, AutoModelForCausalLM, LlamaForCausalLM


@pytest.mark.parametrize("biased", [pytest.param(False, id="no bias"), pytest.param(True, id="bias")])
@pytest.mark.parametrize("rows", [1, 7, 16, 33])
def test_loss_and_gradient_are_those_of_cross_entropy(monkeypatch: pytest.MonkeyPatch, rows: int, biased: bool) -> None:
    monkeypatch.setattr(losses, "CHUNK", 7)
    torch.manual_seed(rows)
    hidden = torch.randn(rows, 12, dtype=torch.float64, requires_grad=True)
    weight, bias = torch.randn(50, 12, dtype=torch.float64), torch.randn(50, dtype=torch.float64) if biased else None
    labels = torch.randint(0, 50, (rows,))
    ours = FrozenHeadLoss.apply(hidden, weight, bias, labels)  # type: ignore[no-untyped-call]
    (3 * ours).backward()
    gradient, hidden.grad = hidden.grad, None
    stock = functional.cross_entropy(functional.linear(hidden, weight, bias), labels, reduction="sum")
    (3 * stock).backward()
    assert ours.item() == pytest.approx(stock.item(), rel=1e-5)  # sums are taken in float32
    assert gradient is not None
    assert hidden.grad is not None
    assert torch.allclose(gradient, hidden.grad, atol=1e-5)


def test_measuring_takes_no_gradient() -> None:
    hidden, weight = torch.randn(5, 4), torch.randn(9, 4)
    with torch.no_grad():
        loss = FrozenHeadLoss.apply(hidden, weight, None, torch.arange(5))  # type: ignore[no-untyped-call]
    assert not loss.requires_grad


def _model(folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    torch.manual_seed(1)
    targets = ["q_proj", "v_proj", "up_proj", "down_proj"]
    config = LoraConfig(target_modules=targets, init_lora_weights=False, lora_dropout=0.0)
    return get_peft_model(AutoModelForCausalLM.from_pretrained(folder, dtype=dtype), config)


def _batch() -> Packed:
    chance = torch.Generator().manual_seed(5)
    sizes = (32, 11, 9, 30, 4, 20, 25, 3)
    return pack([torch.randint(0, 256, (size,), generator=chance).tolist() for size in sizes], 32, padding=257)


def test_gradients_reach_the_adapter_as_from_the_models_own_loss(tiny_model: Path) -> None:
    model, batch = _model(tiny_model), _batch()
    sum_loss(model, batch).backward()
    ours = [weight.grad.clone() for weight in trainable_weights(model) if weight.grad is not None]
    model.zero_grad()
    logits = model(input_ids=batch.tokens, position_ids=batch.positions, attention_mask=batch.mask()).logits
    functional.cross_entropy(
        logits.flatten(0, 1), batch.labels.flatten(), ignore_index=IGNORED, reduction="sum"
    ).backward()
    stock = [weight.grad for weight in trainable_weights(model)]
    assert len(ours) == len(stock) > 0
    for mine, other in zip(ours, stock, strict=True):
        assert other is not None
        assert torch.allclose(mine, other, atol=1e-4)


class Loud(LlamaForCausalLM):
    """Multiplies its logits, which no setting tells."""

    def forward(self, *arguments: Any, **named: Any) -> Any:
        found = super().forward(*arguments, **named)
        found.logits = found.logits * 1.5
        return found


class Quiet(LlamaForCausalLM):
    """Divides what goes into its head."""

    def forward(self, *arguments: Any, **named: Any) -> Any:
        def divide(_module: Any, inputs: Any) -> Any:
            return (inputs[0] / 2,)

        hook = self.lm_head.register_forward_pre_hook(divide)
        try:
            return super().forward(*arguments, **named)
        finally:
            hook.remove()


@pytest.mark.parametrize("kind", [Loud, Quiet])
def test_a_model_that_changes_its_logits_is_measured_and_trained_by_its_own_forward(
    tiny_model: Path, kind: type[LlamaForCausalLM]
) -> None:
    base, batch = kind.from_pretrained(tiny_model), _batch()
    wanted = batch.labels != IGNORED
    inputs = {"input_ids": batch.tokens, "position_ids": batch.positions, "attention_mask": batch.mask()}
    stock = functional.cross_entropy(base(**inputs).logits[wanted], batch.labels[wanted], reduction="none")
    assert torch.allclose(losses.token_losses(base, batch), stock, atol=1e-5)
    model = get_peft_model(base, LoraConfig(target_modules=["q_proj", "up_proj"], init_lora_weights=False))
    found = sum_loss(model.eval(), batch)
    found.backward()
    ours = [weight.grad.clone() for weight in trainable_weights(model) if weight.grad is not None]
    model.zero_grad()
    own = functional.cross_entropy(model(**inputs).logits[wanted], batch.labels[wanted], reduction="sum")
    own.backward()
    assert found.item() == pytest.approx(own.item(), rel=1e-5)
    assert len(ours) == len(trainable_weights(model)) > 0
    for mine, weight in zip(ours, trainable_weights(model), strict=True):
        assert torch.allclose(mine, weight.grad, atol=1e-4)


TINY = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip


@pytest.mark.parametrize(
    ("expected", "name", "settings"),
    [
        pytest.param(True, "llama", {}, id="none"),
        pytest.param(True, "qwen2", {"tie_word_embeddings": True}, id="tied embeddings"),
        pytest.param(True, "phi", {}, id="a head with a bias"),
        pytest.param(True, "granite", {"logits_scaling": 1.0}, id="a scale that changes nothing"),
        pytest.param(False, "granite", {"logits_scaling": 8.0}, id="a divisor"),
        pytest.param(False, "cohere", {"logit_scale": 0.0625}, id="a factor"),
        pytest.param(False, "gemma2", {"head_dim": 8}, id="a cap"),
        pytest.param(
            False, "falcon_h1", {"lm_head_multiplier": 0.5, "mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_state": 8},
            id="a factor of another name",
        ),
        pytest.param(False, "recurrent_gemma", {"num_hidden_layers": 3, "lru_width": 32}, id="a cap of another name"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_comes_after_the_head_is_found_out(
    expected: bool, name: str, settings: dict[str, Any], dtype: torch.dtype
) -> None:
    config = AutoConfig.for_model(name, **{**TINY, **settings})
    model = AutoModelForCausalLM.from_config(config, dtype=dtype).train()
    random = torch.get_rng_state()
    assert has_plain_logits(model) is expected
    assert model.training
    assert torch.equal(torch.get_rng_state(), random)


def test_it_is_found_out_once(tiny_model: Path) -> None:
    model, passes = AutoModelForCausalLM.from_pretrained(tiny_model), []
    model.register_forward_hook(lambda *_: passes.append(1))
    assert [has_plain_logits(model), has_plain_logits(model)] == [True, True]
    assert len(passes) == 1


def test_finding_out_costs_no_gradient_in_half_precision(tiny_model: Path) -> None:
    model, batch = _model(tiny_model), _batch()
    gradients = []
    for _ in range(2):  # the first pass finds out
        stepping.accumulate(model, batch, len(batch), "BFloat16", lambda: None)
        gradients.append([weight.grad for weight in trainable_weights(model)])
        model.zero_grad()
    for first, second in zip(*gradients, strict=True):
        assert first is not None
        assert first.abs().sum() > 0
        assert torch.equal(first, second)


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_accumulated_gradients_are_those_of_one_big_batch(tiny_model: Path, rows: int) -> None:
    model, batch = _model(tiny_model), _batch()
    whole = stepping.accumulate(model, batch, len(batch), "Float32", lambda: None)
    wanted = [weight.grad.clone() for weight in trainable_weights(model) if weight.grad is not None]
    model.zero_grad()
    parts = stepping.accumulate(model, batch, rows, "Float32", lambda: None)
    assert parts == pytest.approx(whole, rel=1e-6)
    for weight, other in zip(trainable_weights(model), wanted, strict=True):
        assert weight.grad is not None
        assert torch.allclose(weight.grad, other, atol=1e-6)


def test_the_loss_is_the_mean_over_targets_whatever_the_padding(tiny_model: Path) -> None:
    model = _model(tiny_model)
    document = list(range(20))
    loss = stepping.accumulate(model, pack([document], 64, padding=257), 1, "Float32", lambda: None)
    tokens = torch.tensor([document])
    assert loss == pytest.approx(model(input_ids=tokens, labels=tokens).loss.item(), rel=1e-5)


def test_clipping_keeps_a_step_small(tiny_model: Path) -> None:
    model = _model(tiny_model)
    optimizer = torch.optim.SGD(trainable_weights(model), lr=0.0)
    before = [weight.detach().clone() for weight in trainable_weights(model)]
    for weight in trainable_weights(model):
        weight.grad = torch.full_like(weight, 10.0)
    norm = stepping.apply_gradients(model, optimizer, rate=1.0, loss=1.0)
    moved = torch.cat([(old - new).flatten() for old, new in zip(before, trainable_weights(model), strict=True)])
    assert norm > 100
    assert moved.norm().item() == pytest.approx(stepping.CLIP_NORM, rel=1e-3)


def test_memory_for_the_optimizer_is_taken_as_it_would_take_it_itself(tiny_model: Path) -> None:
    model = _model(tiny_model)
    made = []
    for early in (False, True):
        optimizer = torch.optim.AdamW(trainable_weights(model), lr=0.0, weight_decay=0.0, fused=True)
        if early:
            stepping.prepare(optimizer)
            assert all(not value.any() for entry in optimizer.state.values() for value in entry.values())
        for weight in trainable_weights(model):
            weight.grad = torch.ones_like(weight)
        optimizer.step()
        stepping.prepare(optimizer)  # does nothing any more
        made.append([(key, value) for entry in optimizer.state.values() for key, value in entry.items()])
    for (key, value), (other_key, other) in zip(*made, strict=True):
        assert (key, value.dtype, value.shape) == (other_key, other.dtype, other.shape)
        assert torch.equal(value, other)


@pytest.mark.parametrize(
    ("entry", "loss"),
    [
        pytest.param(math.inf, 1.0, id="a gradient that has overflowed"),
        pytest.param(math.nan, 1.0, id="a gradient that is no number"),
        pytest.param(1.0, math.nan, id="a loss that is no number"),
    ],
)
def test_a_step_without_a_number_changes_neither_weights_nor_optimizer(
    tiny_model: Path, entry: float, loss: float
) -> None:
    model = _model(tiny_model)
    optimizer = torch.optim.AdamW(trainable_weights(model), fused=True)
    for value in (1.0, entry):
        before = copy.deepcopy([model.state_dict(), optimizer.state_dict()["state"]])
        for weight in trainable_weights(model):
            weight.grad = torch.full_like(weight, value)
        stepping.apply_gradients(model, optimizer, rate=0.1, loss=1.0 if value != entry else loss)
        assert all(weight.grad is None for weight in trainable_weights(model))
    after = [model.state_dict(), optimizer.state_dict()["state"]]
    for old, new in zip(torch.utils._pytree.tree_leaves(before), torch.utils._pytree.tree_leaves(after), strict=True):
        assert torch.equal(old, new)


def test_gradients_in_half_precision_are_about_those_in_full(tiny_model: Path) -> None:
    found, full = [], _model(tiny_model)
    for precision, dtype in (("Float32", torch.float32), ("Float16", torch.float16)):
        model = _model(tiny_model, dtype)
        for weight, same in zip(trainable_weights(model), trainable_weights(full), strict=True):
            weight.data.copy_(same)
        loss = stepping.accumulate(model, _batch(), 2, precision, lambda: None)
        gradients = [weight.grad for weight in trainable_weights(model) if weight.grad is not None]
        assert {gradient.dtype for gradient in gradients} == {torch.float32}
        found.append((loss, torch.cat([gradient.flatten() for gradient in gradients])))
    (loss, gradient), (half_loss, half_gradient) = found
    assert half_loss == pytest.approx(loss, rel=1e-3)
    assert (half_gradient - gradient).norm() < 0.01 * gradient.norm()


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        pytest.param(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
                     torch.OutOfMemoryError, id="the CPU's allocator"),
        pytest.param(torch.OutOfMemoryError("CUDA out of memory."), torch.OutOfMemoryError, id="CUDA"),
        pytest.param(RuntimeError("CUDA error: out of memory\nCompile with `TORCH_USE_CUDA_DSA`"),
                     torch.OutOfMemoryError, id="CUDA itself"),
        pytest.param(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
                     torch.OutOfMemoryError, id="cuBLAS"),
        pytest.param(RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), torch.OutOfMemoryError, id="cuDNN 8"),
        pytest.param(RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
                     torch.OutOfMemoryError, id="cuDNN 9"),
        pytest.param(RuntimeError("Triton Error [CUDA]: out of memory"), torch.OutOfMemoryError, id="Triton"),
        pytest.param(torch.distributed.DistBackendError("ncclUnhandledCudaError: Call to CUDA function failed.\n"
                     "Last error:\nCuda failure 2 'out of memory'"), torch.OutOfMemoryError, id="NCCL"),
        pytest.param(RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED"), RuntimeError, id="may be anything"),
        pytest.param(RuntimeError("CUDA error: an illegal memory access was encountered"), RuntimeError,
                     id="memory that is not short"),
        pytest.param(RuntimeError("shapes differ"), RuntimeError, id="another fault stays what it is"),
    ],
)  # fmt: skip
def test_memory_errors_become_one(error: RuntimeError, expected: type[Exception]) -> None:
    with pytest.raises(expected) as caught, stepping.memory_errors():
        raise error
    assert type(caught.value) is expected
