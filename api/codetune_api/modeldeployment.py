"""ModelDeployment: a vLLM server for one base model with any number of LoRA adapters."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from codetune_api.common import (
    NAME_RULE,
    BaseModelUri,
    Conditions,
    Failure,
    LocalRef,
    Resource,
    Resources,
    Scheduling,
    SecretRef,
)
from codetune_api.model import ApiModel, Digest, list_map, rules

ModelName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*$", max_length=128)]


class AdapterSpec(ApiModel):
    """One adapter: from a FineTune, or by its place in the store."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "has(self.fineTuneRef) != has(self.uri)",
                "an adapter comes either from a fineTuneRef or from a uri: give exactly one of the two",
            ),
            (
                "has(self.fineTuneRef) || (!has(self.checkpoint) && !has(self.minImprovement))",
                "checkpoint and minImprovement belong to a fineTuneRef: remove them from an adapter with a uri",
            ),
            (
                "has(self.uri) || !has(self.digest)",
                "digest belongs to a uri: an adapter of a fineTuneRef is pinned by its FineTune",
            ),
        )
    )

    name: ModelName
    """The model name that requests use; its versions are swapped beneath it."""
    fine_tune_ref: LocalRef | None = None
    checkpoint: Annotated[str, Field(pattern=r"^(best|latest|step-[0-9]{1,9})$", max_length=16)] | None = None
    """`best` (the default), `latest`, or `step-N`."""
    min_improvement: Annotated[float, Field(ge=-1, le=1)] | None = None
    """Serve only when `status.evaluation.improvement` of the FineTune is at least this; 0.05 is 5 %."""
    uri: Annotated[str, Field(pattern=r"^pvc://[a-z0-9]([-a-z0-9.]*[a-z0-9])?/.+$", max_length=1024)] | None = None
    """`pvc://codetune-artifacts/path`: a PEFT adapter folder in the artifact store."""
    digest: Digest | None = None
    """Expected digest of that folder."""


class Engine(ApiModel):
    """vLLM's own options, under its own names in camelCase."""

    max_model_len: Annotated[int, Field(ge=64, le=10_000_000)] | None = None
    """Longest sequence, in tokens; unset: the model's own limit."""
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    quantization: Annotated[str, Field(pattern=r"^[a-z0-9_-]+$", max_length=64)] | None = None
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share of the GPU's memory that vLLM may take."""
    max_loras: Annotated[int, Field(ge=1, le=256)] = 4
    """Adapters in one batch; further ones wait on the CPU."""
    extra_args: Annotated[list[Annotated[str, Field(max_length=1024)]], Field(max_length=64)] = []
    """Passed to vLLM after all other arguments."""


class ServiceSpec(ApiModel):
    """How the server is reached."""

    type: Literal["ClusterIP", "NodePort", "LoadBalancer"] = "ClusterIP"
    port: Annotated[int, Field(ge=1, le=65535)] = 8000


class ModelDeploymentSpec(ApiModel):
    """What to serve."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "has(self.modelSecretRef) == has(oldSelf.modelSecretRef) && "
                "(!has(self.modelSecretRef) || self.modelSecretRef == oldSelf.modelSecretRef)",
                "modelSecretRef can't be changed once set: change the token inside the Secret, "
                "or make a new ModelDeployment",
            )
        )
    )

    base_model: BaseModelUri
    """`hf://org/name@revision`, `pvc://claim/path` or, on a local cluster, `file:///path`."""
    model_secret_ref: SecretRef | None = None
    """Secret with the key `token`: the model hub's access token."""
    served_model_name: ModelName | None = None
    """Model name of the base model itself; unset: the last part of `baseModel`."""
    adapters: Annotated[list[AdapterSpec], Field(max_length=256, json_schema_extra=list_map("name"))] = []
    engine: Engine = Engine()
    replicas: Annotated[int, Field(ge=0, le=1000)] = 1
    resources: Resources = Resources()
    scheduling: Scheduling = Scheduling()
    service: ServiceSpec = ServiceSpec()


AdapterPhase = Literal["Pending", "Loading", "Ready", "Held", "Failed"]


class AdapterState(ApiModel):
    """One adapter as it is served."""

    name: str
    checkpoint: str = ""
    digest: Digest | None = None
    phase: AdapterPhase
    ready_replicas: int = 0
    reason: str = ""
    """CamelCase, e.g. AdapterIncompatible; empty when it is served."""
    message: str = ""


class ModelDeploymentStatus(ApiModel):
    """What is served."""

    phase: Literal["Pending", "Starting", "Ready", "Updating", "Stopped", "Failed"] | None = None
    observed_generation: int | None = None
    conditions: Conditions = []
    endpoint: str | None = None
    """Base URL of the OpenAI-compatible API, without `/v1`."""
    replicas: int = 0
    ready_replicas: int = 0
    selector: str = ""
    models: list[str] = []
    """Model names that answer now."""
    adapters: Annotated[list[AdapterState], Field(json_schema_extra=list_map("name"))] = []
    failure: Failure | None = None


class ModelDeployment(Resource):
    """A vLLM server for one base model and its adapters."""

    model_config = ConfigDict(json_schema_extra=NAME_RULE)

    spec: ModelDeploymentSpec
    status: ModelDeploymentStatus = ModelDeploymentStatus()
