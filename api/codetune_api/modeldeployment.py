"""ModelDeployment: a vLLM server for one base model with any number of LoRA adapters."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

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
from codetune_api.engine import EngineArgument, argument_rules
from codetune_api.metadata import STORE_SERVICE
from codetune_api.model import FORM, ApiModel, Digest, Name, Quantity, list_map, rules

SET: dict[str, Any] = {"x-kubernetes-list-type": "set"}
ModelName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*$", max_length=128)]

MinImprovement = Annotated[float, Field(ge=-1, le=1)]
LabelValue = Annotated[str, Field(pattern=r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$", max_length=63)]


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
    checkpoint: Checkpoint | None = None
    """`best` (the default), `latest`, or `step-N`; the first two move while the training goes on or is run again."""
    min_improvement: MinImprovement | None = None
    """Serve only when `status.evaluation.improvement` of the FineTune is at least this; 0.05 is 5 %."""
    uri: (
        Annotated[
            str,
            Field(
                pattern=r"^((pvc|s3)://[a-z0-9]([-a-z0-9.]*[a-z0-9])?|file://)/.+$",
                max_length=1024,
                json_schema_extra={
                    FORM: "write pvc://codetune-artifacts/PATH, s3://BUCKET/PATH or, on a local cluster, file:///PATH"
                },
            ),
        ]
        | None
    ) = None
    """A PEFT adapter folder: `pvc://codetune-artifacts/path` in a store that is a claim, `s3://bucket/path`, or on a
    local cluster `file:///path`."""
    digest: Digest | None = None
    """Expected digest of that folder."""


class LabelRequirement(ApiModel):
    """As in a Kubernetes label selector."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "(self.operator in ['In', 'NotIn']) == (has(self.values) && size(self.values) > 0)",
                "values belong to the operators In and NotIn, and these need at least one",
            )
        )
    )

    key: Annotated[str, Field(min_length=1, max_length=317)]
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: Annotated[list[LabelValue], Field(max_length=64)] = []


class AdapterSelector(ApiModel):
    """FineTunes by their labels: each one that matches is served under its own name as long as it exists."""

    match_labels: Annotated[dict[str, LabelValue], Field(max_length=32)] = {}
    match_expressions: Annotated[list[LabelRequirement], Field(max_length=32)] = []
    """All of them and all of `matchLabels` must hold; none at all matches every FineTune of the namespace."""
    checkpoint: Checkpoint | None = None
    """As in `adapters`, for all of them."""
    min_improvement: MinImprovement | None = None
    """As in `adapters`, for all of them."""


class Engine(ApiModel):
    """vLLM's own options, under its own names in camelCase."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "!has(self.maxCpuLoras) || self.maxCpuLoras >= self.maxLoras",
                "maxCpuLoras must not be smaller than maxLoras: active adapters are in main memory too",
            )
        )
    )

    max_model_len: Annotated[int, Field(ge=64, le=10_000_000)] | None = None
    """Longest sequence, in tokens; unset: the model's own limit."""
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """Number format of the weights; auto: the model's own."""
    quantization: Annotated[str, Field(pattern=r"^[a-z0-9_-]+$", max_length=64)] | None = None
    """vLLM's name of a quantization, e.g. `fp8`; unset: what the model's configuration says."""
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share of the GPU's memory that vLLM may take."""
    max_loras: Annotated[int, Field(ge=1, le=256)] = 4
    """Adapters in one batch; further ones wait on the CPU."""
    max_cpu_loras: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Adapters in main memory, at least `maxLoras`; unset: twice `maxLoras`, at least 16. Further ones wait on disk."""
    extra_args: Annotated[list[EngineArgument], Field(max_length=64, json_schema_extra=argument_rules())] = []
    """Passed to vLLM after all other arguments; those that have a field, or that the operator sets, are refused."""


class ServiceSpec(ApiModel):
    """How the server is reached."""

    type: Literal["ClusterIP", "NodePort", "LoadBalancer"] = "ClusterIP"
    """NodePort and LoadBalancer are reached from outside of the cluster, by everybody."""
    port: Annotated[int, Field(ge=1, le=65535)] = 8000
    """Port of the Service."""


class KeyRef(ApiModel):
    """One key of a Secret or ConfigMap of the namespace."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", max_length=253)]
    key: Annotated[str, Field(pattern=r"^[-._a-zA-Z0-9]+$", max_length=253)]


class EnvSource(ApiModel):
    """Where a variable's value comes from."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "has(self.secretKeyRef) != has(self.configMapKeyRef)",
                "give exactly one of secretKeyRef and configMapKeyRef",
            )
        )
    )

    secret_key_ref: KeyRef | None = None
    config_map_key_ref: KeyRef | None = None


class EnvVar(ApiModel):
    """A variable of the server's environment."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            ("!(has(self.value) && has(self.valueFrom))", "give value or valueFrom, not both"),
            (
                "!self.name.startsWith('CODETUNE_') && !(self.name in ['VLLM_API_KEY', 'VLLM_PLUGINS', "
                "'VLLM_ALLOW_RUNTIME_LORA_UPDATING', 'HF_TOKEN', 'HOME', 'TMPDIR'])",
                "the operator sets this variable itself: for API keys use apiKeysSecretRef, for the hub modelSecretRef",
            ),
        )
    )

    name: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=128)]
    value: Annotated[str, Field(max_length=4096)] | None = None
    value_from: EnvSource | None = None


class Autoscaling(ApiModel):
    """How many replicas follow from the load: a HorizontalPodAutoscaler on the ModelDeployment's scale."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            ("self.minReplicas <= self.maxReplicas", "minReplicas must not be larger than maxReplicas")
        )
    )

    min_replicas: Annotated[int, Field(ge=1, le=1000)] = 1
    """Fewest replicas."""
    max_replicas: Annotated[int, Field(ge=1, le=1000)]
    """Most replicas."""
    target: Annotated[int, Field(ge=1, le=100_000)] = 4
    """Value of the metric for each replica that is aimed at, e.g. requests that wait in its queue."""
    metric: Annotated[str, Field(pattern=r"^[A-Za-z_:][A-Za-z0-9_:]*$", max_length=256)] = "vllm_num_requests_waiting"
    """Pods metric of the API custom.metrics.k8s.io, as the cluster's metrics adapter names it."""
    scale_down_delay_seconds: Annotated[int, Field(ge=0, le=3600)] = 300
    """How long the load must be lower before replicas go."""


class NetworkPolicySpec(ApiModel):
    """Who may talk to the pods, and whom they may talk to."""

    enabled: bool = True
    """False leaves the pods' traffic to the namespace's own policies."""
    allow_namespaces: Annotated[list[Name], Field(max_length=64, json_schema_extra=SET)] = []
    """Namespaces besides its own whose pods may reach the server, e.g. those of an ingress or of Prometheus."""


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
    """`hf://org/name@revision`, `pvc://claim/path`, `s3://bucket/path` or, on a local cluster, `file:///path`."""
    model_secret_ref: SecretRef | None = None
    """Secret with the key `token`: the model hub's access token."""
    served_model_name: ModelName | None = None
    """Model name of the base model itself; unset: the last part of `baseModel`."""
    adapters: Annotated[list[AdapterSpec], Field(max_length=256, json_schema_extra=list_map("name"))] = []
    """Adapters that are served under their names beside the base model; they are swapped without a restart."""
    adapter_selector: AdapterSelector | None = None
    """Serves matching FineTunes besides `adapters`; an entry there wins over a FineTune of the same name."""
    adapter_cache_size: Quantity = "20Gi"
    """Room in each pod for copies of the adapters that it holds."""
    engine: Engine = Engine()
    replicas: Annotated[int, Field(ge=0, le=1000)] = 1
    """Pods that serve; 0 stops them. With `autoscaling` the autoscaler writes it, and 0 pauses that."""
    autoscaling: Autoscaling | None = None
    resources: Resources = Resources()
    """More than one GPU: the model is split over them (tensor parallel)."""
    scheduling: Scheduling = Scheduling()
    service: ServiceSpec = ServiceSpec()
    network_policy: NetworkPolicySpec = NetworkPolicySpec()
    api_keys_secret_ref: SecretRef | None = None
    """Secret whose values hold API keys, one a line: then every route but health asks for one of them."""
    env: Annotated[list[EnvVar], Field(max_length=64, json_schema_extra=list_map("name"))] = []
    """Variables of the server, e.g. vLLM's own."""
    image: Annotated[str, Field(pattern=r"^[^\s]+$", max_length=512)] | None = None
    """Image of the server instead of the operator's own, made from it: with vLLM and `codetune_server` inside."""
    image_pull_secrets: Annotated[list[SecretRef], Field(max_length=16)] = []
    """Secrets with registry credentials, besides those of the operator's settings."""
    startup_timeout_seconds: Annotated[int, Field(ge=60, le=86_400)] = 1800
    """How long a pod may take to load its model before it is started anew."""
    termination_grace_period_seconds: Annotated[int, Field(ge=30, le=3600)] = 120
    """How long requests that are under way may take to end when a pod has to go."""


AdapterPhase = Literal["Pending", "Loading", "Ready", "Held", "Failed"]


class AdapterState(ApiModel):
    """One adapter as it is served."""

    name: str
    fine_tune: str = ""
    """The FineTune that it comes from."""
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
    """Where it stands, in one word; the condition `Ready` says more."""
    observed_generation: int | None = None
    conditions: Conditions = []
    endpoint: str | None = None
    """Base URL of the OpenAI-compatible API, without `/v1`."""
    replicas: int = 0
    ready_replicas: int = 0
    selector: str = ""
    """Label selector of the pods, for autoscalers."""
    base_model: ModelPin | None = None
    """A base model of the hub as the pods have it; replicas that come later get the same commit."""
    models: list[str] = []
    """Model names that answer now."""
    adapters: Annotated[list[AdapterState], Field(json_schema_extra=list_map("name"))] = []
    """What became of each adapter that was asked for."""
    failure: Failure | None = None


class ModelDeployment(Resource):
    """A vLLM server for one base model and its adapters."""

    model_config = ConfigDict(
        json_schema_extra=object_rules(
            (
                f"self.metadata.name != '{STORE_SERVICE}'",
                f"metadata.name can't be {STORE_SERVICE!r}, which is the name of the namespace's store service: choose "
                "another name",
            )
        )
    )

    spec: ModelDeploymentSpec
    status: ModelDeploymentStatus = ModelDeploymentStatus()
