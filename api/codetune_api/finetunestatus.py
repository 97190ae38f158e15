"""What is known of a run: the status of a FineTune, and its parts."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from codetune_api.common import Conditions, Failure, ModelPin
from codetune_api.model import ApiModel, Digest, Timestamp, list_map
from codetune_api.tuning import Parameters

Loss = Annotated[float, AfterValidator(lambda loss: round(loss, 5))]
"""A loss in nats per token, to five places: what comes after them is noise that nobody should have to read."""

FineTunePhase = Literal[
    "Pending", "WaitingForData", "Queued", "Starting", "Running", "Suspended", "Succeeded", "Failed"
]


class Progress(ApiModel):
    """How far the run is."""

    step: int = 0
    total_steps: int = 0
    percent: Annotated[float, Field(ge=0, le=100)] = 0
    """Of the steps; it falls only when the run goes back to a checkpoint."""
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
    """When the run last told of itself."""
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
    selection_files: int = 0
    """Other held-out files, by which the best checkpoint was chosen; 0 where too few are held out, so that the same
    files chose and judge."""
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


class FineTuneStatus(ApiModel):
    """Everything about the run."""

    phase: FineTunePhase | None = None
    """Where it stands, in one word; the condition `Ready` says more."""
    observed_generation: int | None = None
    conditions: Conditions = []
    progress: Progress | None = None
    eta: Timestamp | None = None
    """When the run should end."""
    remaining: str | None = None
    """Time left, for people: `12m`."""
    checkpoints: Annotated[list[CheckpointStatus], Field(json_schema_extra=list_map("name"))] = []
    """Those that are in the store: the newest `checkpoints.keep`, and the best."""
    best_checkpoint: str | None = None
    """The one with the lowest held-out loss: what is evaluated and served."""
    latest_checkpoint: str | None = None
    """The newest one: where a run that is interrupted goes on."""
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
    """How many attempts died and were followed by another, as `retries` allows."""
    started_at: Timestamp | None = None
    finished_at: Timestamp | None = None
    failure: Failure | None = None

    @property
    def best(self) -> CheckpointStatus | None:
        """The checkpoint that `best_checkpoint` names."""
        return next((found for found in self.checkpoints if found.name == self.best_checkpoint), None)
