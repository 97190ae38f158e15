"""Each hand-written pass against what it stands for: values against torch's own operations, gradients against
differences in float64 (gradcheck)."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from codetune_trainer.train.kernels import attention, lora
from codetune_trainer.train.kernels.attention import DocumentAttention
from codetune_trainer.train.kernels.gating import GatedProduct
from codetune_trainer.train.kernels.lora import LoraProduct
from codetune_trainer.train.kernels.norms import RmsNorm
from codetune_trainer.train.kernels.rotary import Rotation
from torch.nn import functional


def _random(*shape: int, trained: bool = True) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=trained)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(3)


def _check(function: Callable[..., Any], *inputs: torch.Tensor) -> None:
    assert torch.autograd.gradcheck(function, inputs)


@pytest.mark.parametrize("biased", [pytest.param(False, id="no bias"), pytest.param(True, id="bias")])
def test_lora_is_a_linear_layer_and_two_narrow_ones(biased: bool) -> None:
    weight, bias = _random(5, 6, trained=False), _random(5, trained=False) if biased else None
    x, down, up = _random(7, 6), _random(2, 6), _random(5, 2)

    def fused(x: torch.Tensor, down: torch.Tensor, up: torch.Tensor) -> Any:
        return LoraProduct.apply(x, weight, bias, down, up, 0.5, 0.0)  # type: ignore[no-untyped-call]

    stock = functional.linear(x, weight, bias) + 0.5 * functional.linear(functional.linear(x, down), up)
    assert torch.allclose(fused(x, down, up), stock)
    _check(fused, x, down, up)


DROPOUT = [pytest.param(0.1, id="rare, by places"), pytest.param(0.3, id="frequent, by a mask")]


def _dropped(shape: tuple[int, int], dropout: float) -> torch.Tensor:
    """Ones after dropout: a layer whose weight is zero, and whose adapter is the identity."""
    identity = torch.eye(shape[1], dtype=torch.float64)
    ones = torch.ones(shape, dtype=torch.float64)
    result: torch.Tensor = LoraProduct.apply(ones, 0 * identity, None, identity, identity, 1.0, dropout)  # type: ignore[no-untyped-call]
    return result


@pytest.mark.parametrize(
    ("dropout", "rare"),
    [
        pytest.param(0.1, lora.RARE, id="rare, by places"),
        pytest.param(0.3, lora.RARE, id="frequent, by a mask"),
        pytest.param(0.1, 0.0, id="rare, by a mask as on a GPU"),
    ],
)
def test_lora_drops_for_the_adapter_only_and_the_same_forwards_and_backwards(
    monkeypatch: pytest.MonkeyPatch, dropout: float, rare: float
) -> None:
    monkeypatch.setattr(lora, "RARE", rare)
    weight = _random(5, 6, trained=False)
    x, down, up = _random(7, 6), _random(2, 6), _random(5, 2)

    def fused(x: torch.Tensor, down: torch.Tensor, up: torch.Tensor) -> Any:
        torch.manual_seed(1)  # gradcheck calls many times: always the same elements
        return LoraProduct.apply(x, weight, None, down, up, 0.5, dropout)  # type: ignore[no-untyped-call]

    torch.manual_seed(1)
    ones = _dropped((7, 6), dropout)
    stock = x @ weight.t() + 0.5 * (x * ones) @ down.t() @ up.t()
    assert 0 < ones.count_nonzero() < ones.numel()
    assert torch.allclose(fused(x, down, up), stock)
    _check(fused, x, down, up)


@pytest.mark.parametrize("dropout", DROPOUT)
def test_lora_drops_each_element_with_the_same_probability_and_by_itself(dropout: float) -> None:
    ones = _dropped((20_000, 8), dropout)
    gone = (ones == 0).double()
    assert torch.allclose(ones[ones > 0], torch.tensor(1 / (1 - dropout)).double())  # the mean stays
    wanted = torch.full((8,), dropout, dtype=torch.float64)
    assert torch.allclose(gone.mean(0), wanted, atol=0.015)
    assert torch.allclose(gone[:10_000].mean(0), gone[10_000:].mean(0), atol=0.025)  # from the first to the last
    assert (gone[:, 1:] * gone[:, :-1]).mean().item() == pytest.approx(dropout**2, abs=0.005)
    assert (gone[1:] * gone[:-1]).mean().item() == pytest.approx(dropout**2, abs=0.005)


@pytest.mark.parametrize("dropout", [0.01, 0.1])
def test_lora_drops_by_a_mask_what_is_rare_too(monkeypatch: pytest.MonkeyPatch, dropout: float) -> None:
    monkeypatch.setattr(lora, "RARE", 0.0)  # as on a GPU
    ones = torch.ones(20_000, 8, dtype=torch.float64)
    choice = lora.choose_dropped(ones, dropout)
    assert (choice.dtype, choice.shape) == (torch.bool, ones.shape)
    found = lora.drop(ones, choice, dropout)
    assert torch.equal(found != 0, choice)
    assert torch.allclose(found[choice], torch.tensor(1 / (1 - dropout)).double())
    assert found.mean().item() == pytest.approx(1, abs=0.005)  # the mean stays
    assert torch.allclose((found == 0).double().mean(0), torch.full((8,), dropout).double(), atol=0.01)


@pytest.mark.parametrize("size", [1, 2, 40])
def test_lora_drops_from_few_elements_too(size: int) -> None:
    found = torch.stack([_dropped((1, size), 0.125) for _ in range(2000)])
    assert (found == 0).double().mean().item() == pytest.approx(0.125, abs=0.03)


def test_lora_drops_from_a_transposed_input_too() -> None:
    x, down, up = _random(6, 7).t(), _random(2, 6), _random(5, 2)
    results = []
    for layout in (x, x.contiguous()):
        torch.manual_seed(1)
        results.append(LoraProduct.apply(layout, torch.zeros(5, 6).double(), None, down, up, 0.5, 0.1))  # type: ignore[no-untyped-call]
    assert torch.allclose(*results)


def test_lora_takes_no_gradient_of_an_input_that_needs_none() -> None:
    x, down, up = _random(7, 6, trained=False), _random(2, 6), _random(5, 2)
    LoraProduct.apply(x, _random(5, 6, trained=False), None, down, up, 0.5, 0.0).sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is None
    assert down.grad is not None


SPANS = [
    pytest.param([(0, 0, 9), (1, 0, 9)], id="one document a sequence"),
    pytest.param([(0, 0, 4), (0, 4, 5), (0, 5, 9), (1, 0, 2), (1, 2, 7)], id="several, with padding"),
    pytest.param([(1, 0, 3)], id="a sequence of padding alone"),
]


def _mask(spans: Sequence[attention.Span], length: int) -> torch.Tensor:
    """True where a query may look at a key; nothing at all for padding."""
    mask = torch.zeros(2, 1, length, length, dtype=torch.bool)
    for row, start, stop in spans:
        mask[row, :, start:stop, start:stop] = True
    return mask & torch.ones(length, length, dtype=torch.bool).tril()


@pytest.mark.parametrize("kept", [pytest.param(9, id="kept"), pytest.param(4, id="kept of short documents")])
@pytest.mark.parametrize("spans", SPANS)
@pytest.mark.parametrize(("heads", "shared"), [(4, 2), (3, 3), (2, 1)])
def test_attention_inside_documents_is_stock_attention_under_a_mask(
    monkeypatch: pytest.MonkeyPatch, spans: list[attention.Span], heads: int, shared: int, kept: int
) -> None:
    monkeypatch.setattr(attention, "BLOCK", 2)
    monkeypatch.setattr(attention, "KEPT", kept)
    query, key, value = _random(2, heads, 9, 4), _random(2, shared, 9, 4), _random(2, shared, 9, 3)

    def ours(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> Any:
        return DocumentAttention.apply(query, key, value, spans, 0.7)  # type: ignore[no-untyped-call]

    mask = _mask(spans, 9)
    stock = functional.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, scale=0.7, enable_gqa=True
    ).transpose(1, 2)
    inside = mask.any(dim=-1)[:, 0]
    assert torch.allclose(ours(query, key, value)[inside], stock[inside])
    assert not ours(query, key, value)[~inside].any()
    _check(ours, query, key, value)


def test_attention_takes_the_layout_that_projections_leave() -> None:
    query = _random(2, 9, 4, 8).transpose(1, 2)
    key, value = (_random(2, 9, 2, 8).transpose(1, 2) for _ in range(2))
    spans = [(0, 0, 9), (1, 0, 9)]
    ours = DocumentAttention.apply(query, key, value, spans, 0.7)  # type: ignore[no-untyped-call]
    again = DocumentAttention.apply(query.contiguous(), key, value, spans, 0.7)  # type: ignore[no-untyped-call]
    assert torch.equal(ours, again)


@pytest.mark.parametrize("shape", [(5, 6), (2, 3, 6)])
def test_rms_norm_is_its_formula(shape: tuple[int, ...]) -> None:
    x, gain = _random(*shape), _random(6, trained=False)

    def ours(x: torch.Tensor) -> Any:
        return RmsNorm.apply(x, gain, 1e-5)  # type: ignore[no-untyped-call]

    assert torch.allclose(ours(x), functional.rms_norm(x, (6,), gain, 1e-5))
    _check(ours, x)


def test_rotation_turns_the_halves() -> None:
    x = _random(2, 3, 5, 8)
    cos, sin = (_random(2, 1, 5, 8, trained=False) for _ in range(2))

    def ours(x: torch.Tensor) -> Any:
        return Rotation.apply(x, cos, sin)  # type: ignore[no-untyped-call]

    turned = torch.cat((-x[..., 4:], x[..., :4]), dim=-1)
    assert torch.allclose(ours(x), x * cos + turned * sin)
    _check(ours, x)


@pytest.mark.parametrize(
    ("kind", "activation"),
    [
        pytest.param("silu", functional.silu, id="silu"),
        pytest.param("gelu", functional.gelu, id="gelu"),
        pytest.param("gelu_tanh", lambda x: functional.gelu(x, approximate="tanh"), id="gelu with tanh"),
    ],
)
def test_gated_product_is_activation_times_up(kind: str, activation: Callable[[torch.Tensor], torch.Tensor]) -> None:
    gate, up = _random(4, 6), _random(4, 6)

    def ours(gate: torch.Tensor, up: torch.Tensor) -> Any:
        return GatedProduct.apply(gate, up, kind)  # type: ignore[no-untyped-call]

    assert torch.allclose(ours(gate, up), activation(gate) * up)
    _check(ours, gate, up)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_goes_through_all_of_them(dtype: torch.dtype) -> None:
    x = torch.randn(4, 6).to(dtype).requires_grad_()
    gain, weight = torch.ones(6, dtype=dtype), torch.eye(6, dtype=dtype)
    down, up = torch.zeros(2, 6, requires_grad=True), torch.zeros(6, 2, requires_grad=True)
    normal = RmsNorm.apply(x, gain, 1e-5)  # type: ignore[no-untyped-call]
    wide = LoraProduct.apply(normal, weight, None, down, up, 1.0, 0.5)  # type: ignore[no-untyped-call]
    product = GatedProduct.apply(wide, wide, "silu")  # type: ignore[no-untyped-call]
    heads = product.view(1, 2, 4, 3)
    result = DocumentAttention.apply(heads, heads, heads, [(0, 0, 4)], 1.0)  # type: ignore[no-untyped-call]
    result.float().sum().backward()
    assert result.dtype == x.dtype == dtype
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert up.grad is not None
    assert up.grad.dtype == torch.float32
