"""Every parameter of a run out of preset, dataset size, machine and overrides. Pure: the one place that decides.

The starting point are the defaults of Refact's self-hosted fine-tuning (learning rate 3e-4, 128 sequences of 2048
tokens a step, 20 warm-up steps, weight decay 0.1, dropout 0.01, epochs by dataset size), scaled down where the dataset
or the machine is small.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from codetune_api.finetune import (
    NO_DORA,
    NO_QUANTIZATION_ON_CPU,
    NO_QUANTIZED_SHARDING,
    Checkpoints,
    EarlyStopping,
    LoraOverrides,
    Parameters,
    Preset,
    TrainingOverrides,
)
from codetune_api.tuning import MOST_PATIENCE

SMALLER_BELOW_TOKENS = 2_000_000
STANDARD_BELOW_TOKENS = 50_000_000
LEAST_STEPS = 50
# Sequences in an epoch → epochs; the last row holds for everything larger.
EPOCHS = ((1_000, 50), (5_000, 35), (15_000, 20), (30_000, 10))
EPOCHS_OF_LARGE = 3
BETAS = (0.9, 0.95)
"""AdamW's moments."""
CLIP_NORM = 0.5
"""Longest gradient of a step."""
BASE_SHARE = 0.8
"""Share of a GPU's free memory that the base model may take before several GPUs share its weights."""
PATIENCE = 0.2
"""Share of the steps that may pass without a lower held-out loss."""
LEAST_PATIENCE = 2
"""Checkpoints; one that is not better may be chance."""


class InvalidParametersError(ValueError):
    """A combination that can't be trained; the message names field, value and cure."""


@dataclass(frozen=True)
class Shape:
    """What a preset says about the adapter."""

    rank: int
    train_embeddings: bool = False


SHAPES = {"Smaller": Shape(16), "Standard": Shape(32), "Embeddings": Shape(64, True)}
SCALE = 2.0
"""What the adapter's update is scaled by: alpha / rank, or alpha / sqrt(rank) with rank-stabilized LoRA."""


@dataclass(frozen=True)
class Facts:
    """What is known of dataset, model and machine when the parameters are resolved."""

    dataset_tokens: int
    """Tokens in the training files."""
    has_fim: bool
    """Whether the tokenizer has fill-in-the-middle tokens."""
    device: Literal["cpu", "cuda"]
    has_bf16: bool
    max_positions: int
    """Longest sequence that the model takes, in tokens."""
    linear_modules: Sequence[str]
    """Names of the linear layers that an adapter can go on, the output head left out."""
    embeddings: Sequence[str] = ()
    """Names of token embeddings and output head where an adapter can go on them."""
    no_embeddings: str = ""
    """Why it can't, where it can't."""
    fim_format: str = ""
    """Family whose fill-in-the-middle tokens the tokenizer has."""
    notes: Sequence[str] = ()
    """What must be said of the model, e.g. that its experts are left alone."""
    processes: int = 1
    """How many share each batch."""
    weights: int = 0
    """Weights of the base model; only asked for with several processes."""
    free_bytes: int | None = None
    """Free memory of the smallest GPU; None on CPUs."""
    experts: int = 0
    """How many experts the layers of the base model choose from; 0 where there are none."""
    sequences: int | None = None
    """Sequences of one pass, of the length that `choose_length` gives; None where documents share them: full ones."""


def choose_preset(tokens: int) -> Preset:
    """What `Auto` means for a dataset of so many tokens."""
    if tokens < SMALLER_BELOW_TOKENS:
        return "Smaller"
    return "Standard" if tokens < STANDARD_BELOW_TOKENS else "Embeddings"


def resolve(
    preset: Preset, lora: LoraOverrides, training: TrainingOverrides, checkpoints: Checkpoints, facts: Facts
) -> Parameters:
    """The parameters of a run; overrides win, and what had to be adapted is said in `notes`.

    Raises: InvalidParametersError.
    """
    notes = list(facts.notes)
    chosen = choose_preset(facts.dataset_tokens) if preset == "Auto" else preset
    shape = SHAPES[chosen]
    length = choose_length(training.sequence_length, facts)
    sequences = _sequences_a_step(training.batch_tokens, length, facts)
    steps = _steps(training, length, sequences, facts)
    if sequences < facts.processes:
        notes.append(
            f"A step has {sequences} sequences for {facts.processes} processes: {facts.processes - sequences} of them "
            "only help with the evaluation. Raise training.batchTokens, or take fewer GPUs or nodes."
        )
    precision = _precision(training.precision or "Auto", facts)
    quantization = _quantization(lora, training, facts, notes)
    sharded = quantization == "None" and _sharded(training.sharding, precision, facts, notes)
    rank = lora.rank or shape.rank
    every_steps = min(checkpoints.every_steps or max(1, math.ceil(steps / 10)), steps)
    embeddings = list(facts.embeddings) if _train_embeddings(lora, shape, facts, notes) else []
    return Parameters(
        preset=chosen,
        rank=rank,
        alpha=lora.alpha or _alpha(rank, rs_lora=bool(lora.rs_lora)),
        dropout=0.01 if lora.dropout is None else lora.dropout,
        target_modules=sorted(_targets(lora.target_modules, facts.linear_modules) + embeddings),
        train_embeddings=bool(embeddings),
        rs_lora=bool(lora.rs_lora),
        quantization=quantization,
        max_steps=steps,
        epochs=round(steps * sequences / _sequences_a_pass(length, facts), 3),
        sequence_length=length,
        batch_tokens=sequences * length,
        learning_rate=training.learning_rate or 3e-4,
        scheduler=training.scheduler or "Cosine",
        warmup_steps=min(20, steps // 10) if training.warmup_steps is None else min(training.warmup_steps, steps),
        weight_decay=0.1 if training.weight_decay is None else training.weight_decay,
        clip_norm=CLIP_NORM,
        betas=list(BETAS),
        fim_rate=_fim_rate(training.fim_rate, facts, notes),
        fim_format=facts.fim_format if facts.has_fim else "",
        precision=precision,
        gradient_checkpointing=training.gradient_checkpointing == "On" or sharded,
        sharded=sharded,
        seed=0 if training.seed is None else training.seed,
        every_steps=every_steps,
        processes=facts.processes,
        early_stopping=training.early_stopping or _early_stopping(steps, every_steps),
        notes=notes,
    )


def choose_length(asked: int | None, facts: Facts) -> int:
    """Tokens in a sequence of a run. Raises: InvalidParametersError."""
    if asked is not None and asked > facts.max_positions:
        raise InvalidParametersError(
            f"training.sequenceLength is {asked}, but the base model takes at most {facts.max_positions} tokens: "
            f"set it to {facts.max_positions} or less"
        )
    return asked or min(2048 if facts.device == "cuda" else 512, facts.max_positions)


def _sequences_a_pass(length: int, facts: Facts) -> float:
    return facts.sequences or max(facts.dataset_tokens, 1) / length


def _sequences_a_step(batch_tokens: int | None, length: int, facts: Facts) -> int:
    if batch_tokens is not None:
        return math.ceil(batch_tokens / length)
    most = 128 if facts.device == "cuda" else 8
    # At least eight steps an epoch: a small code base should not be one huge batch.
    return max(1, min(most, int(_sequences_a_pass(length, facts) / 8)))


def _steps(training: TrainingOverrides, length: int, sequences: int, facts: Facts) -> int:
    if training.max_steps is not None:
        return training.max_steps
    in_a_pass = math.ceil(_sequences_a_pass(length, facts))
    epochs = training.epochs or next((found for below, found in EPOCHS if in_a_pass < below), EPOCHS_OF_LARGE)
    steps = math.ceil(epochs * in_a_pass / sequences)
    return steps if training.epochs else max(LEAST_STEPS, steps)


def _alpha(rank: int, *, rs_lora: bool) -> float:
    return SCALE * math.sqrt(rank) if rs_lora else SCALE * rank


def _early_stopping(steps: int, every_steps: int) -> EarlyStopping:
    fifth = math.ceil(PATIENCE * steps / every_steps)
    return EarlyStopping(patience=min(max(LEAST_PATIENCE, fifth), MOST_PATIENCE))


def _targets(asked: list[str] | None, found: Sequence[str]) -> list[str]:
    if not asked:
        return list(found)
    missing = sorted(set(asked) - set(found))
    if missing:
        raise InvalidParametersError(
            f"lora.targetModules names {', '.join(missing)}, on which the base model takes no adapter, or which it "
            f"does not have: choose from {', '.join(sorted(found))}"
        )
    return list(set(asked))


def _train_embeddings(lora: LoraOverrides, shape: Shape, facts: Facts, notes: list[str]) -> bool:
    """Whether the adapter goes on them: as asked for, or as the preset has it where the layers are not chosen.

    Raises: InvalidParametersError.
    """
    if lora.dora:  # for whoever comes past the CRD
        raise InvalidParametersError(NO_DORA)
    asked = lora.train_embeddings
    wanted = shape.train_embeddings and not lora.target_modules if asked is None else asked
    if not wanted or facts.embeddings:
        return wanted
    if asked:
        raise InvalidParametersError(refuse_embeddings(facts.no_embeddings))
    notes.append(f"Embeddings are not trained: {facts.no_embeddings}.")
    return False


def refuse_embeddings(why: str) -> str:
    """What is said to who asks for trained embeddings where a model can't have them."""
    return f"lora.trainEmbeddings is true, but {why}: remove it, or take a base model of another family"


def _quantization(
    lora: LoraOverrides, training: TrainingOverrides, facts: Facts, notes: list[str]
) -> Literal["None", "Nf4"]:
    if lora.quantization != "Nf4":
        return "None"
    if facts.experts > 1:
        raise InvalidParametersError(
            f"lora.quantization is Nf4, but the {facts.experts} experts of the base model, most of its weights, would "
            "stay in 16 bits: remove it (several GPUs can share the weights: training.sharding), or take a base model "
            "without experts"
        )
    if facts.device == "cpu":
        raise InvalidParametersError(NO_QUANTIZATION_ON_CPU)
    if training.sharding == "On":
        raise InvalidParametersError(NO_QUANTIZED_SHARDING)
    notes.append(
        "Trained on the base model in 4 bits, which the evaluation is of too; the adapter is served on the base model "
        "as it is."
    )
    return "Nf4"


def _fim_rate(asked: float | None, facts: Facts, notes: list[str]) -> float:
    if facts.has_fim:
        return 0.9 if asked is None else asked
    if asked:
        notes.append(f"fimRate {asked:g} became 0: this model has no fill-in-the-middle tokens.")
    else:
        notes.append("Trained without fill-in-the-middle: this model has no tokens for it.")
    return 0.0


def _sharded(asked: str | None, precision: str, facts: Facts, notes: list[str]) -> bool:
    """Whether the processes share the base model's weights: when asked for, or when these would fill a GPU."""
    if asked == "On" and facts.processes == 1:
        raise InvalidParametersError(
            "training.sharding is On, but there is one process to hold the weights: set resources.gpus or "
            "resources.nodes to 2 or more, or training.sharding to Auto"
        )
    size = facts.weights * (4 if precision == "Float32" else 2)
    fills = facts.processes > 1 and facts.free_bytes is not None and size > BASE_SHARE * facts.free_bytes
    if asked == "Off" or not (asked == "On" or fills):
        return False
    notes.append(
        f"The base model's weights, {size / 1e9:.1f} GB, are spread over {facts.processes} processes; "
        "activations are computed twice."
    )
    return True


def _precision(asked: str, facts: Facts) -> Literal["BFloat16", "Float16", "Float32"]:
    if asked == "BFloat16" or (asked == "Auto" and facts.has_bf16):
        return "BFloat16"
    if asked == "Float16":
        if facts.device == "cpu":
            raise InvalidParametersError(
                "training.precision is Float16, which needs a GPU: use BFloat16 or Float32 with resources.gpus: 0"
            )
        return "Float16"
    return "Float32"
