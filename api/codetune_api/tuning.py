"""What a run is trained with: what a FineTune may set of it, and every parameter once all is resolved."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from codetune_api.model import ApiModel, rules

Preset = Literal["Auto", "Smaller", "Standard", "Embeddings"]

NO_DORA = "lora.dora is true, but vLLM serves no DoRA adapter: remove it, or set lora.rsLora"
NO_QUANTIZATION_ON_CPU = "lora.quantization is Nf4, which needs a GPU: set resources.gpus, or remove it"
NO_QUANTIZED_SHARDING = (
    "training.sharding is On, but weights in 4 bits are not spread over processes: set it to Off, or remove "
    "lora.quantization"
)


class LoraOverrides(ApiModel):
    """The adapter's shape; what is not set comes from the preset."""

    model_config = ConfigDict(json_schema_extra=rules(("!has(self.dora) || !self.dora", NO_DORA)))

    rank: Annotated[int, Field(ge=1, le=512)] | None = None
    """Rank r of the update BA (arXiv:2106.09685)."""
    alpha: Annotated[float, Field(gt=0, le=4096)] | None = None
    """The update is scaled by alpha / rank; unset: twice the rank."""
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Share of the adapter's inputs that a step leaves out; unset: 0.01."""
    target_modules: (
        Annotated[list[Annotated[str, Field(min_length=1, max_length=256)]], Field(max_length=64)] | None
    ) = None
    """Names of linear layers, e.g. `q_proj`; empty or unset: all linear layers but the output head, which
    `trainEmbeddings` is about."""
    train_embeddings: bool | None = None
    """The adapter goes on token embeddings and output head too; in families where vLLM serves that, such as Llama and
    Qwen3. Unset: with the preset `Embeddings`, where `targetModules` is not set either."""
    rs_lora: bool | None = None
    """Rank-stabilized LoRA (arXiv:2312.03732): the update is scaled by alpha / sqrt(rank)."""
    dora: bool | None = None
    """Weight-decomposed LoRA (arXiv:2402.09353); refused, because vLLM serves no such adapter."""
    quantization: Literal["None", "Nf4"] | None = None
    """Nf4: the frozen base model is held in 4 bits while it is trained on (QLoRA, arXiv:2305.14314), in about a quarter
    of the memory; takes a GPU, and a model without experts. The adapter is served on the base model as it is."""


MOST_PATIENCE = 1000


class EarlyStopping(ApiModel):
    """Stop when the held-out loss no longer falls."""

    patience: Annotated[int, Field(ge=1, le=MOST_PATIENCE)] = 3
    """Checkpoints in a row without improvement; where nothing is set, a fifth of the run, at least 2."""
    min_delta: Annotated[float, Field(ge=0)] = 0.0
    """Smallest fall of the held-out loss that counts, in nats per token."""


class TrainingOverrides(ApiModel):
    """The optimisation; what is not set comes from the preset and the size of the dataset."""

    max_steps: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """Number of optimizer steps; wins over `epochs`."""
    epochs: Annotated[float, Field(gt=0, le=1000)] | None = None
    """Passes over the training files."""
    sequence_length: Annotated[int, Field(ge=64, le=131_072)] | None = None
    """Tokens in a packed sequence."""
    batch_tokens: Annotated[int, Field(ge=64, le=2**27)] | None = None
    """Tokens in an optimizer step, over all GPUs; rounded up to whole sequences."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] | None = None
    """Peak learning rate."""
    scheduler: Literal["Constant", "Linear", "Cosine"] | None = None
    """How the learning rate falls after the warm-up; unset: Cosine, to a tenth at the end. Linear falls to zero."""
    warmup_steps: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    """Optimizer steps in which the learning rate rises; unset: 20, at most a tenth of the run."""
    weight_decay: Annotated[float, Field(ge=0, le=1)] | None = None
    """AdamW's weight decay; unset: 0.1."""
    fim_rate: Annotated[float, Field(ge=0, le=1)] | None = None
    """Share of documents turned into fill-in-the-middle examples, where the model has the tokens for it; unset: 0.9."""
    precision: Literal["Auto", "BFloat16", "Float16", "Float32"] | None = None
    """Auto: bf16 where the hardware has it."""
    gradient_checkpointing: Literal["Auto", "On", "Off"] | None = None
    """Whether activations are computed twice, to save memory; Auto: where not even one sequence fits otherwise."""
    sharding: Literal["Auto", "On", "Off"] | None = None
    """Whether several processes share the weights of the base model (FSDP); Auto: when they do not fit one GPU."""
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    """Of everything that is random in the run; unset: 0."""
    early_stopping: EarlyStopping | None = None


class Parameters(ApiModel):
    """Every parameter of the run, after preset, dataset size and overrides."""

    preset: Preset
    rank: int
    alpha: float
    dropout: float
    target_modules: list[str]
    """All modules that the adapter goes on."""
    train_embeddings: bool
    """Whether token embeddings and output head are among them."""
    max_steps: int
    epochs: float
    sequence_length: int
    batch_tokens: int
    learning_rate: float
    scheduler: Literal["Constant", "Linear", "Cosine"]
    warmup_steps: int
    weight_decay: float
    fim_rate: float
    precision: Literal["BFloat16", "Float16", "Float32"]
    gradient_checkpointing: bool
    seed: int
    every_steps: int
    """Optimizer steps between two checkpoints."""
    early_stopping: EarlyStopping | None = None
    rs_lora: bool = False
    quantization: Literal["None", "Nf4"] = "None"
    """How the base model was held while it was trained on."""
    clip_norm: float = 0.5
    """Longest gradient of a step; a longer one is shortened."""
    betas: list[float] = [0.9, 0.95]
    """AdamW's moments."""
    processes: int = 1
    """How many share each batch: one a GPU, or one a node without GPUs."""
    sharded: bool = False
    """Whether they share the weights of the base model too."""
    fim_format: str = ""
    """Model family in whose fill-in-the-middle format the run is trained; empty: none."""
    notes: list[str] = []
    """Why a value is not what one might expect, e.g. no fill-in-the-middle tokens in this model."""
