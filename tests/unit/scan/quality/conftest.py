"""A tiny random model with one token a byte."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM, PreTrainedTokenizerFast

WINDOW = 128


def save_tiny_model(folder: Path, *, begins: bool = False, sliding: bool = False, seed: int = 0) -> Path:
    """Write a model as the hub has them.

    Args:
        folder: Where to.
        begins: Whether its tokenizer puts a token before each text.
        sliding: Whether its attention looks back 32 tokens only.
        seed: Another one gives other weights.
    """
    torch.manual_seed(seed)
    shape: dict[str, Any] = {"vocab_size": 264, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    shape |= {"num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.3}
    shape |= {"max_position_embeddings": WINDOW, "bos_token_id": 256, "eos_token_id": 257}
    made: Any = (
        MistralForCausalLM(MistralConfig(**shape, sliding_window=32))
        if sliding
        else LlamaForCausalLM(LlamaConfig(**shape))
    )
    made.save_pretrained(str(folder))
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: index for index, letter in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in ("<s>", "</s>")])
    if begins:
        tokenizer.post_processor = processors.TemplateProcessing("<s> $A", "<s> $A $B", [("<s>", 256)])
    fast: Any = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
    fast.save_pretrained(str(folder))
    return folder


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A tiny model is fastest with one."""
    before = torch.get_num_threads()
    monkeypatch.setattr("codetune_trainer.train.machine.count_threads", lambda: 1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def save_model() -> Callable[..., Path]:
    """`save_tiny_model`, for tests."""
    return save_tiny_model


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model's folder."""
    return save_tiny_model(tmp_path_factory.mktemp("models") / "tiny")
