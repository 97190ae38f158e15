"""On a CPU, vLLM's own LoRA operations give a token without an adapter the update of the last slot: that is mended."""

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from codetune_server import sparing

torch = pytest.importorskip("torch")
_VLLM = importlib.util.find_spec("vllm")


@pytest.fixture
def operations() -> ModuleType:
    """vLLM's module, fresh and by itself: it needs torch alone."""
    if _VLLM is None or _VLLM.origin is None:
        pytest.skip("vLLM is not installed")
    path = Path(_VLLM.origin).parent / "lora" / "ops" / "torch_ops" / "lora_ops.py"
    spec = importlib.util.spec_from_file_location("lora_ops_alone", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _update(operations: Any) -> Any:
    """What a layer's update is for three tokens: without adapter, with that of slot 1, with that of slot 0."""
    torch.manual_seed(0)
    hidden, down, up = torch.randn(3, 4), torch.randn(2, 1, 2, 4), torch.randn(2, 1, 5, 2)
    slots, lengths, narrow, result = torch.tensor([-1, 1, 0]), torch.ones(3).long(), torch.zeros(3, 2), torch.ones(3, 5)
    told = (torch.arange(3), lengths, slots, 3, 1, 3)
    operations.sgmv_shrink(hidden, down, narrow, *told, 2.0)
    operations.sgmv_expand(narrow, up, result, *told, add_inputs=True)
    expected = torch.ones(3, 5)
    expected[1] += 2 * hidden[1] @ down[1, 0].T @ up[1, 0].T
    expected[2] += 2 * hidden[2] @ down[0, 0].T @ up[0, 0].T
    return result - expected


def test_vllm_still_needs_it(operations: ModuleType) -> None:
    found = _update(operations)
    assert found[0].abs().max() > 0.1
    assert torch.allclose(found[1:], torch.zeros(2, 5), atol=1e-5)


def test_tokens_without_an_adapter_stay_as_they_are_and_others_get_theirs(operations: ModuleType) -> None:
    sparing.mend(operations)
    assert torch.allclose(_update(operations), torch.zeros(3, 5), atol=1e-5)


def test_it_is_done_once_and_nothing_is_told(operations: ModuleType, caplog: pytest.LogCaptureFixture) -> None:
    sparing.mend(operations)
    first = operations.bgmv_shrink
    sparing.mend(operations)
    assert (operations.bgmv_shrink is first, caplog.messages) == (True, [])


def test_what_has_no_such_operations_is_left_alone_and_that_is_told(caplog: pytest.LogCaptureFixture) -> None:
    module = ModuleType("other")
    sparing.mend(module)
    assert not hasattr(module, "bgmv_shrink")
    assert caplog.messages[0].startswith("This vLLM has no bgmv_shrink in other, ")


@pytest.mark.parametrize("device", ["cuda", None])
def test_gpus_are_left_alone(device: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparing, "_MODULES", ("there.is.no.such.module",))
    sparing.spare_base({"CODETUNE_DEVICE": device} if device else {})
