"""Parts that several kinds share: references, scheduling, conditions, failures, digest and URI forms."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field
from pydantic.alias_generators import to_camel

from codetune_api.model import FORM, ApiModel, Name, Quantity, Timestamp, immutable, list_map, rules

MODEL_URI_PATTERN = (
    r"^(hf://[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*(@[A-Za-z0-9][A-Za-z0-9._/-]*)?"
    r"|pvc://[a-z0-9]([-a-z0-9]*[a-z0-9])?/.+|s3://[a-z0-9][-a-z0-9.]*[a-z0-9]/.+|file:///.+)$"
)

_MODEL_URI_FORM = {
    FORM: "write hf://ORG/NAME or hf://ORG/NAME@REVISION for a model of the hub, else pvc://CLAIM/PATH, "
    "s3://BUCKET/PATH or, on a local cluster, file:///PATH"
}

ModelUri = Annotated[str, Field(pattern=MODEL_URI_PATTERN, max_length=512, json_schema_extra=_MODEL_URI_FORM)]

BaseModelUri = Annotated[
    str,
    Field(
        pattern=MODEL_URI_PATTERN,
        max_length=512,
        json_schema_extra={**_MODEL_URI_FORM, **immutable("baseModel", "make a new resource for another base model")},
    ),
]


Checkpoint = Annotated[str, Field(pattern=r"^(best|latest|step-[0-9]{1,9})$", max_length=16)]
"""`best`, `latest`, or `step-N`."""


class LocalRef(ApiModel):
    """A resource of the same namespace, by name."""

    name: Name


class SecretRef(ApiModel):
    """A Secret of the same namespace, by name."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", max_length=253)]


class Toleration(ApiModel):
    """As in a pod: lets a run use nodes that carry a matching taint."""

    key: Annotated[str, Field(max_length=317)] | None = None
    operator: Literal["Exists", "Equal"] | None = None
    value: Annotated[str, Field(max_length=63)] | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    toleration_seconds: int | None = None


class Scheduling(ApiModel):
    """Where the pods may run; each field means what it means in a pod."""

    node_selector: Annotated[dict[str, Annotated[str, Field(max_length=63)]], Field(max_length=32)] = {}
    tolerations: Annotated[list[Toleration], Field(max_length=32)] = []
    affinity: Annotated[
        dict[str, Any] | None,
        Field(json_schema_extra={"type": "object", "x-kubernetes-preserve-unknown-fields": True}),
    ] = None
    """A pod's `affinity`, passed through as it is."""
    priority_class_name: Annotated[str, Field(max_length=253)] | None = None
    runtime_class_name: Annotated[str, Field(max_length=253)] | None = None


class Resources(ApiModel):
    """What one pod asks of its node."""

    gpus: Annotated[int, Field(ge=0, le=64)] = 1
    """Number of GPUs; `0` runs on CPU."""
    gpu_resource: Annotated[
        str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[A-Za-z0-9][-A-Za-z0-9._]*$", max_length=253)
    ] = "nvidia.com/gpu"
    """The extended resource that stands for a GPU, e.g. `amd.com/gpu`."""
    cpu: Quantity | None = None
    """CPU cores asked for, e.g. `4`."""
    memory: Quantity | None = None
    """Memory asked for, also the limit, e.g. `16Gi`."""


class Condition(ApiModel):
    """A standard Kubernetes condition."""

    type: Annotated[str, Field(max_length=316)]
    status: Literal["True", "False", "Unknown"]
    reason: Annotated[str, Field(pattern=r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$", max_length=1024)]
    message: Annotated[str, Field(max_length=32768)] = ""
    last_transition_time: Timestamp
    observed_generation: int | None = None


Conditions = Annotated[list[Condition], Field(json_schema_extra=list_map("type"))]

FailureReason = Literal[
    "OutOfMemory",
    "ImagePull",
    "StartError",
    "CrashLoop",
    "Evicted",
    "Unschedulable",
    "GatedModel",
    "ModelNotFound",
    "EmptyDataset",
    "IncompatibleCheckpoint",
    "DivergedLoss",
    "DiskFull",
    "DeadlineExceeded",
    "SourceUnavailable",
    "RevisionNotFound",
    "AuthenticationFailed",
    "HostKeyUnknown",
    "HostKeyChanged",
    "PathNotFound",
    "EmptyRepository",
    "UnsupportedModel",
    "NotCausalModel",
    "PickledWeights",
    "RemoteCodeModel",
    "UnsupportedSource",
    "DigestMismatch",
    "InvalidArchive",
    "UploadMissing",
    "InvalidParameters",
    "DatasetMissing",
    "StoreDenied",
    "StoreUnavailable",
    "StoreDamaged",
    "InternalError",
    "InvalidSchedule",
    "NoApiKeys",
    "InvalidSpec",
    "NameTaken",
    "Forbidden",
    "Refused",
]


class Failure(ApiModel):
    """Why something failed and how to mend it."""

    reason: FailureReason
    message: Annotated[str, Field(max_length=4096)]
    """What happened, with the values."""
    hint: Annotated[str, Field(max_length=4096)] = ""
    """What to change so that it works."""


class ModelPin(ApiModel):
    """The hub model that is used, at the commit that its revision meant when it was first fetched."""

    uri: Annotated[str, Field(max_length=512)]
    """`hf://org/name@COMMIT`."""
    commit: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]


class ObjectMeta(ApiModel):
    """The metadata that Codetune reads of an object."""

    name: str
    namespace: str = ""
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    finalizers: list[str] = []


class Resource(ApiModel):
    """What every kind has: type and metadata."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True)

    api_version: str
    kind: str
    metadata: ObjectMeta


_NAME_RULE = (
    "size(self.metadata.name) <= 48 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
    "metadata.name must be a DNS label of at most 48 characters that begins with a letter: "
    "names of Jobs and Services are derived from it",
)
NAME_RULE = rules(_NAME_RULE)


def object_rules(*more: tuple[str, str]) -> dict[str, Any]:
    """CEL rules of a whole object: the one about its name, and others."""
    return rules(_NAME_RULE, *more)
