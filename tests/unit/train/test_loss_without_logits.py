"""The loss that never holds all logits, against torch's own cross-entropy, and steps against one big batch."""

from pathlib import Path
from typing import Any

import pytest
import torch
from codetune_trainer.train import losses, stepping
from codetune_trainer.train.losses import FrozenHeadLoss, sum_loss
from codetune_trainer.train.modelling import trainable_weights
from codetune_trainer.train.packing import IGNORED, Packed, pack
from peft import LoraConfig, get_peft_model
from torch.nn import functional
from transformers import AutoModelForCausalLM


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


def _model(folder: Path) -> Any:
    torch.manual_seed(1)
    targets = ["q_proj", "v_proj", "up_proj", "down_proj"]
    config = LoraConfig(target_modules=targets, init_lora_weights=False, lora_dropout=0.0)
    return get_peft_model(AutoModelForCausalLM.from_pretrained(folder), config)


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


def test_a_model_that_changes_its_logits_is_measured_by_its_own_head(tiny_model: Path) -> None:
    model, batch = _model(tiny_model), _batch()
    plain = sum_loss(model, batch).item()
    model.get_base_model().config.logits_scaling = 1.0
    assert sum_loss(model, batch).item() == pytest.approx(plain, rel=1e-5)


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
    norm = stepping.apply_gradients(model, optimizer, rate=1.0)
    moved = torch.cat([(old - new).flatten() for old, new in zip(before, trainable_weights(model), strict=True)])
    assert norm > 100
    assert moved.norm().item() == pytest.approx(stepping.CLIP_NORM, rel=1e-3)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        pytest.param(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
                     torch.OutOfMemoryError, id="the CPU's allocator"),
        pytest.param(torch.OutOfMemoryError("CUDA out of memory."), torch.OutOfMemoryError, id="CUDA"),
        pytest.param(RuntimeError("shapes differ"), RuntimeError, id="another fault stays what it is"),
    ],
)  # fmt: skip
def test_memory_errors_become_one(error: RuntimeError, expected: type[Exception]) -> None:
    with pytest.raises(expected) as caught, stepping.memory_errors():
        raise error
    assert type(caught.value) is expected
