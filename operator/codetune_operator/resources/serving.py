"""The serving Deployment of a ModelDeployment with its Service, configuration and token, as whole objects. Pure.

The set of adapters is no part of the pod template: pods are told of a change, they are not replaced for it.
"""

import base64
import hashlib
import hmac
from typing import Any

from codetune_api.contracts import ENV_MODEL, DesiredAdapters
from codetune_api.metadata import LABEL_COMPONENT, LABEL_INSTANCE, LABEL_MODELDEPLOYMENT, labels
from codetune_api.modeldeployment import ModelDeployment
from codetune_operator.resources.models import (
    FETCH_CONFIG_KEY,
    ModelSource,
    build_fetch_config,
    build_fetch_container,
    canonical_model,
    default_model_name,
)
from codetune_operator.resources.pods import CONFIG, SCRATCH, container, owner_reference, pod_template
from codetune_operator.settings import Settings

Obj = dict[str, Any]

CONTAINER = "server"
PORT = 8000
ADAPTERS_KEY = "adapters.json"
TOKEN_KEY = "token"
ADAPTERS_FOLDER = "/codetune/adapters"
TOKEN_FOLDER = "/codetune/adapter-token"
GRACE_SECONDS = 120
"""Time for requests in flight to end."""
_COMPONENT = "server"
_MAX_CPU_LORAS = 512
"""Adapters kept in main memory: all that a spec can name, twice, for swaps. Memory is taken only for those loaded."""
_STARTUP_SECONDS = 1800
_CACHES = ("VLLM_CACHE_ROOT", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR")


def adapters_name(deployment: ModelDeployment) -> str:
    """Name of the ConfigMap with the desired adapters."""
    return f"{deployment.metadata.name}-adapters"


def token_name(deployment: ModelDeployment) -> str:
    """Name of the Secret with the token for the adapter routes."""
    return f"{deployment.metadata.name}-adapter-token"


def adapter_token(operator_key: bytes, deployment: ModelDeployment) -> str:
    """Derived, not stored: the operator needs no right to read Secrets."""
    return hmac.new(operator_key, f"adapters/{deployment.metadata.uid}".encode(), hashlib.sha256).hexdigest()


def serving_labels(deployment: ModelDeployment) -> dict[str, str]:
    """Labels of everything that serves."""
    name = deployment.metadata.name
    return labels(_COMPONENT, name, {LABEL_MODELDEPLOYMENT: name})


def pod_selector(deployment: ModelDeployment) -> dict[str, str]:
    """Labels that the pods are found by; they can't be changed later, so they are few."""
    chosen = serving_labels(deployment)
    return {key: chosen[key] for key in (LABEL_INSTANCE, LABEL_COMPONENT, LABEL_MODELDEPLOYMENT)}


def served_name(deployment: ModelDeployment) -> str:
    """Model name of the base model."""
    return deployment.spec.served_model_name or default_model_name(deployment.spec.base_model)


def server_arguments(deployment: ModelDeployment, model_path: str, max_lora_rank: int) -> list[str]:
    """vLLM's command line; `engine.extraArgs` come last, so they win."""
    spec, engine = deployment.spec, deployment.spec.engine
    options: list[tuple[str, Any]] = [
        ("--model", model_path),
        ("--served-model-name", served_name(deployment)),
        ("--port", PORT),
        ("--max-lora-rank", max_lora_rank),
        ("--max-loras", engine.max_loras),
        ("--max-cpu-loras", max(_MAX_CPU_LORAS, engine.max_loras)),
        ("--tensor-parallel-size", spec.resources.gpus if spec.resources.gpus > 1 else None),
        ("--max-model-len", engine.max_model_len),
        ("--dtype", engine.dtype if engine.dtype != "auto" else None),
        ("--quantization", engine.quantization),
        ("--gpu-memory-utilization", engine.gpu_memory_utilization),
    ]
    given = [part for name, value in options if value is not None for part in (name, str(value))]
    return [*given, "--enable-lora", *engine.extra_args]


def rank_of(deployment: Obj | None) -> int:
    """The --max-lora-rank of a Deployment; 0 when there is none."""
    template = (deployment or {}).get("spec", {}).get("template", {}).get("spec", {})
    for entry in template.get("containers", []):
        arguments = entry.get("args", [])
        if "--max-lora-rank" in arguments:
            return int(arguments[arguments.index("--max-lora-rank") + 1])
    return 0


def build_serving(
    deployment: ModelDeployment,
    desired: DesiredAdapters,
    model: ModelSource,
    settings: Settings,
    *,
    operator_key: bytes,
    max_rank: int,
) -> tuple[Obj, ...]:
    """Everything that serves, in the order in which it is applied: what pods mount comes first."""
    config = _build(deployment, "v1", "ConfigMap", adapters_name(deployment))
    config["data"] = {ADAPTERS_KEY: desired.model_dump_json(by_alias=True, exclude_none=True, indent=2)}
    secret = _build(deployment, "v1", "Secret", token_name(deployment))
    token = base64.b64encode(adapter_token(operator_key, deployment).encode()).decode()
    secret |= {"type": "Opaque", "data": {TOKEN_KEY: token}}
    objects = [config, secret]
    if model.hub is not None:
        objects.append(_build_fetch_config(deployment, model))
    workload = _build(deployment, "apps/v1", "Deployment", deployment.metadata.name)
    workload["spec"] = _deployment_spec(deployment, model, settings, max_rank)
    return (*objects, build_service(deployment), workload)


def build_service(deployment: ModelDeployment) -> Obj:
    """The stable address of all replicas."""
    service = _build(deployment, "v1", "Service", deployment.metadata.name)
    spec = deployment.spec.service
    port = {"name": "http", "port": spec.port, "targetPort": "http", "protocol": "TCP"}
    service["spec"] = {"type": spec.type, "selector": pod_selector(deployment), "ports": [port]}
    return service


def _build(deployment: ModelDeployment, api_version: str, kind: str, name: str) -> Obj:
    metadata = {
        "name": name,
        "namespace": deployment.metadata.namespace,
        "labels": serving_labels(deployment),
        "ownerReferences": [owner_reference(deployment)],
    }
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata}


def _build_fetch_config(deployment: ModelDeployment, model: ModelSource) -> Obj:
    assert model.hub is not None
    metadata = deployment.metadata
    nonce = hashlib.sha256(f"fetch/{metadata.uid}".encode()).hexdigest()[:32]
    config = build_fetch_config(model.hub, nonce=nonce, namespace=metadata.namespace, name=metadata.name)
    built = _build(deployment, "v1", "ConfigMap", _fetch_config_name(deployment))
    return {**built, "data": {FETCH_CONFIG_KEY: config.model_dump_json(by_alias=True, indent=2)}}


def _fetch_config_name(deployment: ModelDeployment) -> str:
    return f"{deployment.metadata.name}-fetch"


def _deployment_spec(deployment: ModelDeployment, model: ModelSource, settings: Settings, max_rank: int) -> Obj:
    return {
        "replicas": deployment.spec.replicas,
        "selector": {"matchLabels": pod_selector(deployment)},
        # The new pod is there before an old one goes: a change never takes the service down.
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
        "progressDeadlineSeconds": _STARTUP_SECONDS + 600,
        "revisionHistoryLimit": 2,
        "template": _pod_template(deployment, model, settings, max_rank),
    }


def _pod_template(deployment: ModelDeployment, model: ModelSource, settings: Settings, max_rank: int) -> Obj:
    spec = deployment.spec
    config_mount = {"name": "config", "mountPath": CONFIG, "readOnly": True}
    volumes = [
        {"name": "adapters", "configMap": {"name": adapters_name(deployment)}},
        {"name": "adapter-token", "secret": {"secretName": token_name(deployment)}},
        *model.volumes,
    ]
    fetch: list[Obj] = []
    if model.hub is not None:
        volumes.append({"name": "config", "configMap": {"name": _fetch_config_name(deployment)}})
        fetch = [build_fetch_container(spec.model_secret_ref, config_mount, settings)]
    if spec.resources.gpus:
        volumes.append({"name": "shm", "emptyDir": {"medium": "Memory"}})
    return pod_template(
        labels=serving_labels(deployment),
        containers=[_server_container(deployment, model, settings, max_rank)],
        init_containers=fetch,
        volumes=volumes,
        scheduling=spec.scheduling,
        settings=settings,
        restart_policy="Always",
        grace_seconds=GRACE_SECONDS,
    )


def _server_container(deployment: ModelDeployment, model: ModelSource, settings: Settings, max_rank: int) -> Obj:
    spec = deployment.spec
    on_gpu = spec.resources.gpus > 0
    mounts: list[Obj] = [
        {"name": "adapters", "mountPath": ADAPTERS_FOLDER, "readOnly": True},
        {"name": "adapter-token", "mountPath": TOKEN_FOLDER, "readOnly": True},
        *model.mounts,
    ]
    if on_gpu:
        mounts.append({"name": "shm", "mountPath": "/dev/shm"})
    built = container(
        name=CONTAINER,
        image=settings.images.server if on_gpu else settings.images.server_cpu,
        command=["python", "-m", "codetune_server", "serve", "--"],
        settings=settings,
        env=_environment(deployment, model, on_gpu=on_gpu),
        mounts=mounts,
        resources=spec.resources,
        store_read_only=True,
    )
    return {
        **built,
        "args": server_arguments(deployment, model.path, max_rank),
        "ports": [{"name": "http", "containerPort": PORT, "protocol": "TCP"}],
        "startupProbe": _probe("/health", period=5, failures=_STARTUP_SECONDS // 5),
        "readinessProbe": _probe("/codetune/ready", period=5, failures=2),
        "livenessProbe": _probe("/health", period=10, failures=6),
        # Until every proxy has heard that this pod is going, requests still come in.
        "lifecycle": {"preStop": {"sleep": {"seconds": 5}}},
    }


def _probe(path: str, *, period: int, failures: int) -> Obj:
    return {
        "httpGet": {"path": path, "port": "http"},
        "periodSeconds": period,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }


def _environment(deployment: ModelDeployment, model: ModelSource, *, on_gpu: bool) -> dict[str, str]:
    return {
        ENV_MODEL: model.path,
        "CODETUNE_BASE_MODEL": canonical_model(deployment.spec.base_model),
        "CODETUNE_ADAPTERS": f"{ADAPTERS_FOLDER}/{ADAPTERS_KEY}",
        "CODETUNE_ADAPTER_TOKEN_FILE": f"{TOKEN_FOLDER}/{TOKEN_KEY}",
        "CODETUNE_DEVICE": "cuda" if on_gpu else "cpu",
        "HF_HUB_OFFLINE": "1",
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
        "VLLM_NO_USAGE_STATS": "1",
        **{name: f"{SCRATCH}/cache/{name.lower()}" for name in _CACHES},
    }
