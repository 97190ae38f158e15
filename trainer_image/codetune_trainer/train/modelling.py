"""The base model and its adapter: loading with clear refusals, and where LoRA goes."""

import json
from pathlib import Path
from typing import Any

import torch
from codetune_api.finetune import Parameters
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from codetune_trainer.errors import ModelNotFound, UnsupportedModel

DTYPES = {"BFloat16": torch.bfloat16, "Float16": torch.float16, "Float32": torch.float32}
Model = Any
"""transformers and peft publish their model classes without types."""


def has_fast_bf16(device: torch.device) -> bool:
    """Whether the hardware computes in bf16 itself; a CPU that only emulates it is ten times slower than in float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    found: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # newer than the oldest torch that works
    return bool(found.get("avx512_bf16") or found.get("amx_bf16") or found.get("bf16"))


def load_model_config(folder: Path, uri: str) -> Any:
    """The configuration of the base model. Raises: ModelNotFound, UnsupportedModel."""
    if not (folder / "config.json").is_file():
        text = f"There is no model at {uri}: its folder has no config.json."
        raise ModelNotFound(text, "Correct spec.baseModel.")
    if "auto_map" in json.loads((folder / "config.json").read_text()):
        text = f"{uri} brings its own Python code, which Codetune does not run."
        raise UnsupportedModel(text, "Choose a model that transformers supports itself.")
    if not list(folder.glob("*.safetensors")):
        text = f"{uri} has no *.safetensors file; other weight formats can run code when they are loaded."
        raise UnsupportedModel(text, "Choose a model with safetensors weights, or convert it.")
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (ValueError, OSError) as error:
        raise UnsupportedModel(f"The configuration of {uri} can't be read: {error}") from error
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        text = f"{uri} is a {config.model_type} model, which is not a causal language model."
        raise UnsupportedModel(text, "Choose a causal language model.")
    return config


def load_tokenizer(folder: Path, uri: str) -> Any:
    """The model's tokenizer. Raises: ModelNotFound, UnsupportedModel."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (ValueError, OSError) as error:
        raise UnsupportedModel(f"The tokenizer of {uri} can't be loaded: {error}") from error
    if tokenizer.eos_token_id is None:
        text = f"The tokenizer of {uri} has no end-of-text token, so documents can't be told apart."
        raise UnsupportedModel(text, "Choose a model whose tokenizer has an eos_token.")
    return tokenizer


def load_base(folder: Path, uri: str, precision: str, device: torch.device) -> Model:
    """The frozen base model. Raises: ModelNotFound, UnsupportedModel."""
    try:
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=DTYPES[precision],
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            attn_implementation="sdpa",
        )
    except (ValueError, OSError) as error:
        raise UnsupportedModel(f"{uri} can't be loaded: {error}") from error
    model.requires_grad_(False)
    return nn.Module.to(model, device)


def linear_modules(folder: Path, config: Any) -> list[str]:
    """Names of the model's linear layers but the output head; no weights are loaded for it."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    head = model.get_output_embeddings()
    return sorted(
        {
            name.rsplit(".", 1)[-1]
            for name, found in model.named_modules()
            if isinstance(found, nn.Linear) and found is not head
        }
    )


def add_adapter(base: Model, parameters: Parameters, uri: str) -> Model:
    """The base model with a fresh LoRA adapter (arXiv:2106.09685): trainable in float32, initially the identity."""
    config = LoraConfig(
        r=parameters.rank,
        lora_alpha=int(parameters.alpha) if float(parameters.alpha).is_integer() else parameters.alpha,  # type: ignore[arg-type]
        lora_dropout=parameters.dropout,
        target_modules=list(parameters.target_modules),
        task_type="CAUSAL_LM",
        base_model_name_or_path=uri,
    )
    model = get_peft_model(base, config)
    model.peft_config["default"].base_model_name_or_path = uri
    if parameters.gradient_checkpointing:
        base.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        base.enable_input_require_grads()
    return model
