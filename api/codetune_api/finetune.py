"""FineTune: one LoRA training run on a Project, and everything there is to know about it."""

from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field

from codetune_api.common import (
    BaseModelUri,
    Checkpoint,
    Conditions,
    Failure,
    LocalRef,
    ModelPin,
    Resource,
    Resources,
    Scheduling,
    SecretRef,
    object_rules,
)
from codetune_api.model import ApiModel, Digest, Timestamp, immutable, list_map, rules

Preset = Literal["Auto", "Smaller", "Standard", "Embeddings"]


ModuleName = Annotated[str, Field(min_length=1, max_length=256)]


Loss = Annotated[float, AfterValidator(lambda loss: round(loss, 5))]
"""A loss in nats per token, to five places: what comes after them is noise that nobody should have to read."""

NO_EMBEDDINGS = "lora.trainEmbeddings is true, but vLLM serves no adapter with trained embeddings: remove it"
NO_DORA = "lora.dora is true, but vLLM serves no DoRA adapter: remove it, or set lora.rsLora"


class LoraOverrides(ApiModel):
    """The adapter's shape; what is not set comes from the preset."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            ("!has(self.trainEmbeddings) || !self.trainEmbeddings", NO_EMBEDDINGS),
            ("!has(self.dora) || !self.dora", NO_DORA),
        )
    )

    rank: Annotated[int, Field(ge=1, le=512)] | None = None
    """Rank r of the update BA (arXiv:2106.09685)."""
    alpha: Annotated[float, Field(gt=0, le=4096)] | None = None
    """The update is scaled by alpha / rank; unset: twice the rank."""
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = None
    target_modules: (
        Annotated[list[Annotated[str, Field(min_length=1, max_length=256)]], Field(max_length=64)] | None
    ) = None
    """Names of linear layers, e.g. `q_proj`; empty or unset: all linear layers but the output head."""
    train_embeddings: bool | None = None
    """Train token embeddings and output head too; refused, because vLLM serves no such adapter."""
    rs_lora: bool | None = None
    """Rank-stabilized LoRA (arXiv:2312.03732): the update is scaled by alpha / sqrt(rank)."""
    dora: bool | None = None
    """Weight-decomposed LoRA (arXiv:2402.09353); refused, because vLLM serves no such adapter."""


class EarlyStopping(ApiModel):
    """Stop when the held-out loss no longer falls."""

    patience: Annotated[int, Field(ge=1, le=1000)] = 3
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
    warmup_steps: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    weight_decay: Annotated[float, Field(ge=0, le=1)] | None = None
    fim_rate: Annotated[float, Field(ge=0, le=1)] | None = None
    """Share of documents turned into fill-in-the-middle examples, where the model has the tokens for it; unset: 0.9."""
    precision: Literal["Auto", "BFloat16", "Float16", "Float32"] | None = None
    """Auto: bf16 where the hardware has it."""
    gradient_checkpointing: Literal["Auto", "On", "Off"] | None = None
    sharding: Literal["Auto", "On", "Off"] | None = None
    """Whether several processes share the weights of the base model (FSDP); Auto: when they do not fit one GPU."""
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    early_stopping: EarlyStopping | None = None


class Checkpoints(ApiModel):
    """When to save, and how many to keep."""

    every_steps: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Optimizer steps between two checkpoints; unset: a tenth of the run."""
    keep: Annotated[int, Field(ge=1, le=100)] = 3
    """How many of the latest to keep; the best one always stays."""


class FineTuneScheduling(Scheduling):
    """Where and when the run may start."""

    queue_name: Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", max_length=63)] | None = None
    """LocalQueue of Kueue; the run waits there until it is admitted."""


class ResumeFrom(ApiModel):
    """The adapter that a run begins with, instead of a fresh one."""

    fine_tune_ref: LocalRef
    """Another FineTune of the namespace, for the same base model. The run waits until it has finished."""
    checkpoint: Checkpoint = "best"
    """`best`, `latest` or `step-N`; chosen once, when the run starts."""


class FineTuneResources(Resources):
    """What each node of a run is asked for."""

    nodes: Annotated[int, Field(ge=1, le=64)] = 1
    """Pods that train together; each gets all that is said here. More than one needs a store that several nodes can
    mount."""


_ONE_RUN = "make a new FineTune: a run has one set of parameters"


class FineTuneSpec(ApiModel):
    """What to train on what."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "has(self.modelSecretRef) == has(oldSelf.modelSecretRef) && "
                "(!has(self.modelSecretRef) || self.modelSecretRef == oldSelf.modelSecretRef)",
                "modelSecretRef can't be changed once set: change the token inside the Secret, or make a new FineTune",
            ),
            (
                "has(self.resumeFrom) == has(oldSelf.resumeFrom) && "
                "(!has(self.resumeFrom) || self.resumeFrom == oldSelf.resumeFrom)",
                f"resumeFrom can't be changed once set: {_ONE_RUN}",
            ),
            (
                "!has(self.training.precision) || self.training.precision != 'Float16' || self.resources.gpus > 0",
                "training.precision is Float16, which needs a GPU: use BFloat16 or Float32 with resources.gpus: 0",
            ),
            (
                "!has(self.training.sharding) || self.training.sharding != 'On' || self.resources.gpus > 1 || "
                "self.resources.nodes > 1",
                "training.sharding is On, which takes several processes: set resources.gpus or resources.nodes to 2 or "
                "more, or training.sharding to Auto",
            ),
        )
    )

    project_ref: Annotated[
        LocalRef, Field(json_schema_extra=immutable("projectRef", "make a new FineTune for another project"))
    ]
    base_model: BaseModelUri
    """`hf://org/name@revision`, `pvc://claim/path`, `s3://bucket/path` or, on a local cluster, `file:///path`."""
    model_secret_ref: SecretRef | None = None
    """Secret with the key `token`: the model hub's access token."""
    preset: Annotated[Preset, Field(json_schema_extra=immutable("preset", _ONE_RUN))] = "Auto"
    """Auto chooses by the size of the dataset; every field below overrides."""
    lora: Annotated[LoraOverrides, Field(json_schema_extra=immutable("lora", _ONE_RUN))] = LoraOverrides()
    training: Annotated[TrainingOverrides, Field(json_schema_extra=immutable("training", _ONE_RUN))] = (
        TrainingOverrides()
    )
    checkpoints: Checkpoints = Checkpoints()
    resume_from: ResumeFrom | None = None
    """Begins with another FineTune's adapter; its rank, alpha and layers are taken over where `lora` says nothing."""
    resources: FineTuneResources = FineTuneResources()
    scheduling: FineTuneScheduling = FineTuneScheduling()
    suspend: bool = False
    """Stops the run and frees its GPUs; it continues from its last checkpoint."""
    retries: Annotated[int, Field(ge=0, le=100)] = 3
    """How often a run that died is started again, from its last checkpoint."""
    active_deadline_seconds: Annotated[int, Field(ge=1)] | None = None
    """Longest time the run may be active, in seconds."""
    ttl_seconds_after_finished: Annotated[int, Field(ge=0)] | None = None
    """Seconds after which the finished Job and its pods are removed; the FineTune stays."""
    deletion_policy: Literal["Delete", "Retain"] = "Delete"
    """What becomes of the adapter and checkpoints when the FineTune is deleted."""


FineTunePhase = Literal[
    "Pending", "WaitingForData", "Queued", "Starting", "Running", "Suspended", "Succeeded", "Failed"
]


class Progress(ApiModel):
    """How far the run is."""

    step: int = 0
    total_steps: int = 0
    percent: Annotated[float, Field(ge=0, le=100)] = 0
    epoch: float = 0
    loss: Loss | None = None
    """Training loss of the last steps, in nats per token."""
    holdout_loss: Loss | None = None
    """Loss on the held-out files at the last checkpoint, in nats per token."""
    learning_rate: float | None = None
    tokens: int = 0
    """Tokens trained on so far."""
    tokens_per_second: float | None = None
    updated_at: Timestamp | None = None
    stage: str = ""
    """What the run is doing now, e.g. LoadingModel, Tokenizing, Training, Evaluating."""
    message: str = ""
    """Why the run went back to an earlier step, when it did."""


class CheckpointStatus(ApiModel):
    """One checkpoint in the store."""

    name: str
    step: int
    loss: Loss | None = None
    holdout_loss: Loss | None = None
    uri: str
    digest: Digest
    bytes: int = 0
    created_at: Timestamp | None = None


class LossPoint(ApiModel):
    """One point of the loss chart."""

    step: int
    loss: Loss
    holdout_loss: Loss | None = None


class EvaluationScores(ApiModel):
    """Scores on the held-out files."""

    loss: Loss
    """Mean cross-entropy, in nats per token."""
    exact_match: Annotated[float, Field(ge=0, le=1)] | None = None
    """Share of sampled held-out lines that greedy decoding gives to the letter."""
    edit_similarity: Annotated[float, Field(ge=0, le=1)] | None = None
    """Mean of 1 - (edit distance / length) over these lines."""
    infill_exact_match: Annotated[float, Field(ge=0, le=1)] | None = None
    """Share of sampled middles that are filled in to the letter; unset for a model without fill-in-the-middle."""
    infill_edit_similarity: Annotated[float, Field(ge=0, le=1)] | None = None
    """Mean of 1 - (edit distance / length) over these middles."""


class Interval(ApiModel):
    """Where a value lies with 95 % confidence: paired bootstrap over files."""

    low: float
    high: float


class Evaluation(ApiModel):
    """Is the tuned model better than its base on code that neither was trained on?"""

    base: EvaluationScores
    tuned: EvaluationScores
    improvement: float
    """(base loss - tuned loss) / base loss; 0.05 is 5 % better, negative is worse."""
    improvement_interval: Interval | None = None
    """Unset where too few files are held out to tell."""
    exact_match_interval: Interval | None = None
    """Of the difference, tuned minus base."""
    infill_exact_match_interval: Interval | None = None
    """Of the difference, tuned minus base."""
    verdict: Literal["Better", "Worse", "Unclear"] | None = None
    """Whether the loss differs by more than chance."""
    files: int = 0
    """Held-out files that the loss is measured on."""
    tokens: int = 0
    lines: int = 0
    """Lines that were completed."""
    infills: int = 0
    """Middles that were filled in."""
    message: str = ""


class DatasetSource(ApiModel):
    """What a dataset has of one source of its Project."""

    name: str
    commit: str = ""
    """The git commit; empty for another kind of source."""
    digest: Digest | None = None
    """SHA-256 of an archive."""


class DatasetStatus(ApiModel):
    """The pinned dataset of the run."""

    revision: Digest
    files: int = 0
    tokens: int = 0
    uri: str = ""
    sources: Annotated[list[DatasetSource], Field(max_length=64, json_schema_extra=list_map("name"))] = []


class AdapterStatus(ApiModel):
    """The adapter that serving would use: the best checkpoint."""

    uri: str
    digest: Digest
    rank: int


class ResumedFrom(ApiModel):
    """What the run began with."""

    fine_tune: str
    checkpoint: str
    uri: str
    digest: Digest
    base_model: ModelPin | None = None
    """The other run's base model, which is this one's too."""


MergePhase = Literal["Pending", "Merging", "Ready", "Failed"]


class MergedStatus(ApiModel):
    """The base model with an adapter merged into it, as the annotation `codetune.dev/merge` asked for it."""

    request: Annotated[str, Field(max_length=256)]
    """The annotation's value that this is about."""
    phase: MergePhase
    checkpoint: str = ""
    digest: Digest | None = None
    """Of the adapter that is merged in."""
    uri: str = ""
    """Where it lies in the store."""
    message: Annotated[str, Field(max_length=4096)] = ""


class Parameters(ApiModel):
    """Every parameter of the run, after preset, dataset size and overrides."""

    preset: Preset
    rank: int
    alpha: float
    dropout: float
    target_modules: list[str]
    train_embeddings: bool
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


class FineTuneStatus(ApiModel):
    """Everything about the run."""

    phase: FineTunePhase | None = None
    observed_generation: int | None = None
    conditions: Conditions = []
    progress: Progress | None = None
    eta: Timestamp | None = None
    """When the run should end."""
    remaining: str | None = None
    """Time left, for people: `12m`."""
    checkpoints: Annotated[list[CheckpointStatus], Field(json_schema_extra=list_map("name"))] = []
    best_checkpoint: str | None = None
    latest_checkpoint: str | None = None
    loss_history: Annotated[list[LossPoint], Field(max_length=100)] = []
    """The whole run in at most 100 points: the loss chart."""
    evaluation: Evaluation | None = None
    parameters: Parameters | None = None
    base_model: ModelPin | None = None
    """A base model of the hub as the run has it; it stays with this commit, whatever happens to its branch."""
    resumed_from: ResumedFrom | None = None
    dataset: DatasetStatus | None = None
    adapter: AdapterStatus | None = None
    merged: MergedStatus | None = None
    job_name: str | None = None
    restarts: int | None = None
    started_at: Timestamp | None = None
    finished_at: Timestamp | None = None
    failure: Failure | None = None


class FineTune(Resource):
    """A LoRA training run."""

    model_config = ConfigDict(
        json_schema_extra=object_rules(
            (
                "!has(self.spec.resumeFrom) || self.spec.resumeFrom.fineTuneRef.name != self.metadata.name",
                "spec.resumeFrom.fineTuneRef names this FineTune itself, which goes on from its own checkpoints "
                "anyway: name another one",
            )
        )
    )

    spec: FineTuneSpec
    status: FineTuneStatus = FineTuneStatus()
