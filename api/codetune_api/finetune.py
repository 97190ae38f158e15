"""FineTune: one LoRA training run on a Project, and everything there is to know about it."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from codetune_api.common import (
    BaseModelUri,
    Checkpoint,
    LocalRef,
    Resource,
    Resources,
    Scheduling,
    SecretRef,
    object_rules,
)
from codetune_api.finetunestatus import (
    AdapterStatus,
    CheckpointStatus,
    DatasetSource,
    DatasetStatus,
    Evaluation,
    EvaluationScores,
    FineTunePhase,
    FineTuneStatus,
    Interval,
    Loss,
    LossPoint,
    MergedStatus,
    MergePhase,
    Progress,
    ResumedFrom,
)
from codetune_api.model import ApiModel, immutable, rules
from codetune_api.tuning import (
    NO_DORA,
    NO_QUANTIZATION_ON_CPU,
    NO_QUANTIZED_SHARDING,
    EarlyStopping,
    LoraOverrides,
    Parameters,
    Preset,
    TrainingOverrides,
)

__all__ = [
    "NO_DORA",
    "NO_QUANTIZATION_ON_CPU",
    "NO_QUANTIZED_SHARDING",
    "AdapterStatus",
    "CheckpointStatus",
    "Checkpoints",
    "DatasetSource",
    "DatasetStatus",
    "EarlyStopping",
    "Evaluation",
    "EvaluationScores",
    "FineTune",
    "FineTunePhase",
    "FineTuneResources",
    "FineTuneScheduling",
    "FineTuneSpec",
    "FineTuneStatus",
    "Interval",
    "LoraOverrides",
    "Loss",
    "LossPoint",
    "MergePhase",
    "MergedStatus",
    "Parameters",
    "Preset",
    "Progress",
    "ResumeFrom",
    "ResumedFrom",
    "TrainingOverrides",
]


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


_NF4 = "has(self.lora.quantization) && self.lora.quantization == 'Nf4'"
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
            (f"!({_NF4}) || self.resources.gpus > 0", NO_QUANTIZATION_ON_CPU),
            (
                f"!({_NF4}) || !has(self.training.sharding) || self.training.sharding != 'On'",
                NO_QUANTIZED_SHARDING,
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
