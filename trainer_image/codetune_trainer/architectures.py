"""Whether a base model can be trained, by its configuration alone: no weights, no torch, no code of the model's own."""

import json
from pathlib import Path
from typing import Any

from codetune_api.presets import refuse_embeddings
from codetune_api.unreadable import MAKE_READABLE, explain_unreadable
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_MASKED_LM_MAPPING

from codetune_trainer.errors import (
    InvalidParameters,
    ModelNotFound,
    NotCausalModel,
    PickledWeights,
    RemoteCodeModel,
    UnsupportedModel,
)

EMBEDDINGS = ("embed_tokens", "lm_head")
"""Names of token embeddings and output head in all models of the table below."""
# Model types on whose embeddings and head vLLM (0.32) serves LoRA: those whose class in vLLM's registry.py lists both
# of these names in `embedding_modules`. Multimodal models (Llama 4, Qwen3.5) are served by other classes than that of
# the part of them that is trained; and in nemotron_h the embeddings have another name.
WITH_EMBEDDINGS = frozenset({
    "apertus", "ernie4_5", "exaone4", "exaone_moe", "falcon_h1", "granite", "granite_swa", "granitemoe",
    "granitemoe_swa", "granitemoehybrid", "granitemoeshared", "hyperclovax", "jamba", "lfm2", "lfm2_moe", "llama",
    "minicpm3", "mixtral", "nemotron", "phi3", "qwen3", "qwen3_moe",
})  # fmt: skip
_MOST_TOKENS = 258_048
"""Largest vocabulary with LoRA on the head (vLLM's lora/layers/logits_processor.py)."""


def load_model_config(folder: Path, uri: str) -> Any:
    """The configuration of a model whose weights are here. Raises: ModelNotFound, UnsupportedModel."""
    if denied := explain_unreadable(folder):
        raise ModelNotFound(f"{uri} can't be read. {denied}.", MAKE_READABLE)
    if not (folder / "config.json").is_file():
        text = f"There is no model at {uri}: its folder has no config.json."
        raise ModelNotFound(text, "Correct its baseModel.")
    if not list(folder.glob("*.safetensors")):
        text = f"{uri} has no *.safetensors file; other weight formats can run code when they are loaded."
        raise PickledWeights(text, "Choose a model with safetensors weights, or convert it.")
    return read_model_config(folder, uri)


def read_model_config(folder: Path, uri: str) -> Any:
    """The configuration in `config.json`, of a causal language model. Raises: UnsupportedModel."""
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (ValueError, OSError, StrictDataclassError) as error:
        raise _refuse_config(folder, uri, error) from error
    # Encoders have a causal class too, which nobody ever trained.
    is_encoder = type(config) in MODEL_FOR_MASKED_LM_MAPPING and not getattr(config, "is_decoder", False)
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING or is_encoder:
        text = f"{uri} is a {config.model_type} model, which is not a causal language model."
        raise NotCausalModel(text, "Choose a causal language model, such as Qwen2.5-Coder or StarCoder2.")
    _refuse_quantized(config, uri)
    return config


def explain_no_embeddings(config: Any, uri: str) -> str:
    """Why vLLM serves no adapter on the embeddings and the head of a model; nothing where it does."""
    tokens = config.get_text_config().vocab_size
    if config.model_type not in WITH_EMBEDDINGS:
        return (
            f"{uri} is a {config.model_type} model, and vLLM serves LoRA on embeddings and output head in some "
            "families only, such as Llama and Qwen3"
        )
    if tokens > _MOST_TOKENS:
        return f"{uri} has {tokens} tokens, and vLLM serves LoRA on an output head of at most {_MOST_TOKENS}"
    return ""


def check_embeddings(config: Any, uri: str, *, asked: bool) -> None:
    """Refuse trained embeddings that nobody could serve. Raises: InvalidParameters."""
    why = explain_no_embeddings(config, uri) if asked else ""
    if why:
        raise InvalidParameters(f"{refuse_embeddings(why)}.", "Make a new FineTune with other parameters.")


def _refuse_quantized(config: Any, uri: str) -> None:
    """Weights that are loaded by a library of their own, which the image does not have. Raises: UnsupportedModel."""
    found = next(
        (told for part in (config, config.get_text_config()) if (told := getattr(part, "quantization_config", None))),
        None,
    )
    if found is None:
        return
    method = found.get("quant_method") if isinstance(found, dict) else None
    text = f"The weights of {uri} are quantized already ({method or 'quantization_config'} in its config.json)."
    raise UnsupportedModel(text, "Take the repository of this model whose weights are not quantized.")


def _refuse_config(folder: Path, uri: str, error: Exception) -> UnsupportedModel:
    try:
        brings_code = "auto_map" in json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except ValueError:
        brings_code = False
    if brings_code:
        text = f"{uri} brings its own Python code (auto_map in its config.json), which Codetune does not run."
        return RemoteCodeModel(text, "Choose a model that transformers supports itself, without trust_remote_code.")
    return UnsupportedModel(f"The configuration of {uri} can't be read: {error}", "Check the files of the base model.")
