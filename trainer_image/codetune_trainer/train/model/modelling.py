"""The base model and its adapter: loading with clear refusals, and where LoRA goes."""

import importlib.util
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from codetune_api.finetune import Parameters
from codetune_api.tokenizing import write_plain
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from codetune_trainer.errors import InvalidParameters, UnsupportedModel
from codetune_trainer.train.kernels import installing

DTYPES = {"BFloat16": torch.bfloat16, "Float16": torch.float16, "Float32": torch.float32}
# Attention in chunks is left out: it counts positions from the beginning of a sequence, not of a document.
_MASKED_LAYERS = frozenset({"full_attention", "sliding_attention"})
"""Kinds of layers in which a token sees what the mask says, and nothing else."""
Model = Any
"""transformers and peft publish their model classes without types."""


def load_tokenizer(folder: Path, uri: str) -> Any:
    """The model's tokenizer, as it was published. Raises: UnsupportedModel."""
    try:
        with tempfile.TemporaryDirectory() as plain:
            source = plain if write_plain(folder, Path(plain)) else folder
            tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=True, trust_remote_code=False)
    except (ValueError, OSError) as error:
        text = f"The tokenizer of {uri} can't be loaded: {error}"
        raise UnsupportedModel(text, "The model's folder must hold its tokenizer.json too.") from error
    if not tokenizer.is_fast:
        text = f"The tokenizer of {uri} has no tokenizer.json."
        raise UnsupportedModel(text, "Convert it with transformers (save_pretrained of its fast tokenizer).")
    if tokenizer.eos_token_id is None:
        text = f"The tokenizer of {uri} has no end-of-text token, so documents can't be told apart."
        raise UnsupportedModel(text, "Choose a model whose tokenizer has an eos_token.")
    return tokenizer


def load_base(folder: Path, uri: str, precision: str, device: torch.device, *, quantized: bool = False) -> Model:
    """The frozen base model; `Auto` keeps the precision of its weights.

    Args:
        folder: With configuration and weights.
        uri: Its name in what is said.
        precision: As in `Parameters`.
        device: Where it goes.
        quantized: Whether its linear layers but the head are held in 4 bits (nf4).

    Raises:
        UnsupportedModel, InvalidParameters
    """
    more = {"quantization_config": _describe_nf4(precision), "device_map": {"": device}} if quantized else {}
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=DTYPES.get(precision, "auto"),
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            attn_implementation=choose_attention(config),
            **more,
        )
    except (ValueError, OSError, SafetensorError) as error:
        text = f"{uri} can't be loaded: {error}"
        raise UnsupportedModel(text, "Check the files of the base model, or choose another one.") from error
    model.requires_grad_(False)
    return model if quantized else nn.Module.to(model, device)


def choose_attention(config: Any) -> str:
    """The fast implementation, unless scores are capped (Gemma 2): it would leave the cap out without a word."""
    return "sdpa" if getattr(config.get_text_config(), "attn_logit_softcapping", None) is None else "eager"


def _describe_nf4(precision: str) -> BitsAndBytesConfig:
    """As QLoRA has it (arXiv:2305.14314): normal floats, and their scales in 8 bits. Raises: InvalidParameters."""
    if importlib.util.find_spec("bitsandbytes") is None:
        text = "lora.quantization is Nf4, but the trainer's image has no bitsandbytes."
        raise InvalidParameters(text, "Build the image with `pip install codetune-trainer[nf4]`, or do without.")
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=DTYPES[precision],
    )


def linear_modules(config: Any, uri: str) -> list[str]:
    """Names of the model's linear layers but the output head; no weights are loaded. Raises: UnsupportedModel."""
    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except ValueError as error:
        text = f"{uri} can't be built from its configuration: {error}"
        raise UnsupportedModel(text, "Check the config.json of the base model.") from error
    head = model.get_output_embeddings()
    found = {
        name.rsplit(".", 1)[-1]
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module is not head
    }
    if not found:
        text = f"{uri} ({config.model_type}) has no linear layer that an adapter could go on."
        raise UnsupportedModel(text, "Choose a model of a family that vLLM serves with LoRA.")
    return sorted(found)


def count_weights(config: Any) -> int:
    """How many weights a model has; none of them is loaded."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    return sum(weight.numel() for weight in model.parameters())


def can_share_sequences(config: Any, length: int) -> bool:
    """Whether an attention mask alone keeps the documents of one sequence apart.

    Not where the model carries a state from token to token, not where a layer is anything but plain attention, and not
    where its own sliding window is shorter than the sequence, because a mask of ours replaces it. Such models get one
    document a sequence.
    """
    found = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    classes = found if isinstance(found, tuple) else (found,)
    text = config.get_text_config()
    # Not every model that has convolutions or linear attention says that it is stateful.
    is_plain = _MASKED_LAYERS.issuperset(getattr(text, "layer_types", None) or ())
    window = getattr(text, "sliding_window", None)
    is_stateful = any(getattr(entry, "_is_stateful", False) for entry in classes)
    return is_plain and not is_stateful and (not window or window >= length)


def add_adapter(base: Model, parameters: Parameters, uri: str) -> Model:
    """The base model with a fresh LoRA adapter (arXiv:2106.09685): trainable in float32, initially the identity.

    The base's own dropout is taken out of it: what is dropped is what `dropout` says, in the adapter.
    """
    silence_dropout(base)
    config = LoraConfig(
        r=parameters.rank,
        lora_alpha=int(parameters.alpha) if float(parameters.alpha).is_integer() else parameters.alpha,  # type: ignore[arg-type]
        lora_dropout=parameters.dropout,
        target_modules=list(parameters.target_modules),
        use_rslora=parameters.rs_lora,
        task_type="CAUSAL_LM",
    )
    with warnings.catch_warnings():
        # Of tied weights: the two adapters are apart, as in vLLM, and merging unties them.
        warnings.filterwarnings("ignore", message="Model has `tie_word_embeddings=True`")
        model = get_peft_model(base, config)
    model.peft_config["default"].base_model_name_or_path = uri
    installing.speed_up_adapter(model)
    if parameters.gradient_checkpointing:
        enable_checkpointing(model)
    return model


def untie_head(base: Model) -> None:
    """Give the output head weights of its own, where it shares those of the token embeddings."""
    head = base.get_output_embeddings()
    if head.weight is base.get_input_embeddings().weight:
        head.weight = nn.Parameter(head.weight.detach().clone(), requires_grad=False)
    base.config.tie_word_embeddings = base.config.get_text_config().tie_word_embeddings = False


def silence_dropout(base: Model) -> None:
    """Let a base model compute the same in training as in evaluation.

    Some publish the dropout that they were pretrained with (StarCoder2: 0.1). It is in layers of its own, and in
    numbers that modules keep or read from their configuration when they compute.
    """
    for module in base.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
        for source in (module, getattr(module, "config", None)):
            for name, value in list(vars(source).items()) if source is not None else ():
                if "drop" in name and isinstance(value, float) and 0 < value <= 1:
                    setattr(source, name, 0.0)


def begin_adapter_anew(model: Model, seed: int) -> None:
    """Forget what an adapter has learned: it is the identity again."""
    torch.manual_seed(seed)
    for module in model.modules():
        if isinstance(module, LoraLayer):
            for name in module.active_adapters:
                module.reset_lora_parameters(name, init_lora_weights=True)


def enable_checkpointing(model: Model) -> None:
    """Compute activations again in the backward pass instead of keeping them: a third slower, half the memory."""
    # Not re-entrant: gradients reach the adapter without one of the embeddings, which nobody needs.
    model.get_base_model().gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})


def trainable_weights(model: Model) -> list[torch.nn.Parameter]:
    """The adapter's weights, in a fixed order."""
    return [found for found in model.parameters() if found.requires_grad]
