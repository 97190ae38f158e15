"""Whether a base model can be trained, by its configuration alone: no weights, no torch, no code of the model's own."""

import json
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_MASKED_LM_MAPPING

from codetune_trainer.errors import ModelNotFound, NotCausalModel, PickledWeights, RemoteCodeModel, UnsupportedModel


def load_model_config(folder: Path, uri: str) -> Any:
    """The configuration of a model whose weights are here. Raises: ModelNotFound, UnsupportedModel."""
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
