"""The end-to-end tests' tiny model, and random adapters for any model folder."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

_REPOSITORY = Path(__file__).resolve().parents[2]
_CONFTEST = _REPOSITORY / "tests" / "e2e" / "conftest.py"


def make_model(folder: Path) -> Path:
    """A random Llama of three layers with one token a byte; returns its folder."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    tests = _load_tests()
    config = LlamaConfig(
        vocab_size=tests.VOCABULARY,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=512,
        initializer_range=0.3,
        bos_token_id=256,
        eos_token_id=257,
    )
    LlamaForCausalLM(config).save_pretrained(str(folder))  # type: ignore[no-untyped-call]
    tests.build_tokenizer().save_pretrained(str(folder))
    return folder


def make_adapter(model: Path, folder: Path, *, seed: int, base_model: str) -> None:
    """A random LoRA adapter that changes what the model says."""
    _load_tests().TinyModel(model).make_adapter(folder, seed=seed, base_model=base_model)


def _load_tests() -> Any:
    name = "codetune_e2e_conftest"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, _CONFTEST)
        assert spec is not None
        assert spec.loader is not None
        sys.path.append(str(_REPOSITORY / "hack"))  # as pytest has it
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]
