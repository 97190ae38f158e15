"""The pods of a ModelDeployment: vLLM's command line, environment, volumes, probes and the way out. Pure."""

import math
from typing import Any

from codetune_api.contracts import ENV_MODEL
from codetune_api.modeldeployment import EnvVar, ModelDeployment
from codetune_api.quantities import parse_quantity

from codetune_operator.resources.answering import build_probe, container_ports
from codetune_operator.resources.modeldeployment.names import (
    CONTAINER,
    PORT,
    adapters_name,
    fetch_config_name,
    served_name,
    serving_labels,
    token_name,
)
from codetune_operator.resources.models import ModelSource, build_fetch_containers, canonical_model
from codetune_operator.resources.pods import CONFIG, SCRATCH, container, pod_template
from codetune_operator.settings import Settings

Obj = dict[str, Any]

ADAPTERS_KEY = "adapters.json"
TOKEN_KEY = "token"
ADAPTERS_FOLDER = "/codetune/adapters"
TOKEN_FOLDER = "/codetune/adapter-token"
API_KEYS_FOLDER = "/codetune/api-keys"
CACHE_FOLDER = "/codetune/adapter-cache"
SETTLE_SECONDS = 5
"""Until every proxy has heard that a pod is going, requests still come in."""
_LAST_SECONDS = 10
"""Kept of the grace period for what is left after the hook: the signal and the end of the process."""
_SMALLEST_CPU_LORAS = 16
_CACHE_SHARE = 0.95
"""Of the volume's limit, which counts folders and what the file system rounds up too."""
_CACHES = ("VLLM_CACHE_ROOT", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR")


def server_arguments(deployment: ModelDeployment, model_path: str, max_lora_rank: int) -> list[str]:
    """vLLM's command line; `engine.extraArgs` come last."""
    spec, engine = deployment.spec, deployment.spec.engine
    options: list[tuple[str, Any]] = [
        ("--model", model_path),
        ("--served-model-name", served_name(deployment)),
        ("--port", PORT),
        ("--max-lora-rank", max_lora_rank),
        ("--max-loras", engine.max_loras),
        # Memory is taken for those that were loaded; what has to leave is read again from the pod's own copy.
        ("--max-cpu-loras", engine.max_cpu_loras or max(_SMALLEST_CPU_LORAS, 2 * engine.max_loras)),
        ("--tensor-parallel-size", spec.resources.gpus if spec.resources.gpus > 1 else None),
        ("--max-model-len", engine.max_model_len),
        ("--dtype", engine.dtype if engine.dtype != "auto" else None),
        ("--quantization", engine.quantization),
        ("--gpu-memory-utilization", engine.gpu_memory_utilization),
        ("--shutdown-timeout", spec.termination_grace_period_seconds - _LAST_SECONDS),
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


def build_pod_template(deployment: ModelDeployment, model: ModelSource, settings: Settings, max_rank: int) -> Obj:
    """The pods. The set of adapters is no part of it: pods are told of a change, they are not replaced for it."""
    spec = deployment.spec
    config_mount = {"name": "config", "mountPath": CONFIG, "readOnly": True}
    volumes = [
        {"name": "adapters", "configMap": {"name": adapters_name(deployment)}},
        {"name": "adapter-token", "secret": {"secretName": token_name(deployment)}},
        {"name": "adapter-cache", "emptyDir": {"sizeLimit": spec.adapter_cache_size}},
        # vLLM's processes speak to each other through shared memory, on a CPU too; a container has 64 MB of it.
        {"name": "shm", "emptyDir": {"medium": "Memory"}},
        *model.volumes,
    ]
    if spec.api_keys_secret_ref is not None:
        # Without the Secret nobody is admitted; the pod starts all the same and takes it in when it comes.
        secret = {"secretName": spec.api_keys_secret_ref.name, "optional": True}
        volumes.append({"name": "api-keys", "secret": secret})
    if model.origin is not None:
        volumes.append({"name": "config", "configMap": {"name": fetch_config_name(deployment)}})
    return pod_template(
        labels=serving_labels(deployment),
        containers=[_build_server(deployment, model, settings, max_rank)],
        init_containers=build_fetch_containers(model, spec.model_secret_ref, config_mount, settings),
        volumes=volumes,
        scheduling=spec.scheduling,
        settings=settings,
        restart_policy="Always",
        grace_seconds=spec.termination_grace_period_seconds,
        pull_secrets=[secret.name for secret in spec.image_pull_secrets],
    )


def _build_server(deployment: ModelDeployment, model: ModelSource, settings: Settings, max_rank: int) -> Obj:
    spec = deployment.spec
    default_image = settings.images.server if spec.resources.gpus else settings.images.server_cpu
    built = container(
        name=CONTAINER,
        image=spec.image or default_image,
        command=["python", "-m", "codetune_server", "serve", "--"],
        settings=settings,
        env=_environment(deployment, model),
        mounts=_mounts(deployment, model),
        resources=spec.resources,
        store="ReadOnly",
        # Which adapters it is to hold may change at any time.
        reads_buckets=True,
    )
    own = {entry.name for entry in spec.env}
    environment = [entry for entry in built["env"] if entry["name"] not in own]
    wait = spec.termination_grace_period_seconds - _LAST_SECONDS - SETTLE_SECONDS
    leave = ["drain", "--port", str(PORT), "--settle", str(SETTLE_SECONDS), "--seconds", str(wait)]
    return {
        **built,
        "env": [*environment, *(_build_variable(entry) for entry in spec.env)],
        "args": server_arguments(deployment, model.path, max_rank),
        "ports": container_ports(PORT),
        # vLLM answers nothing before its model is loaded.
        "startupProbe": build_probe("/health", period=5, failures=spec.startup_timeout_seconds // 5),
        "readinessProbe": build_probe("/codetune/ready", period=5, failures=2),
        "livenessProbe": build_probe("/health", period=10, failures=6),
        "lifecycle": {"preStop": {"exec": {"command": ["python", "-m", "codetune_server", *leave]}}},
    }


def _mounts(deployment: ModelDeployment, model: ModelSource) -> list[Obj]:
    mounts: list[Obj] = [
        {"name": "adapters", "mountPath": ADAPTERS_FOLDER, "readOnly": True},
        {"name": "adapter-token", "mountPath": TOKEN_FOLDER, "readOnly": True},
        {"name": "adapter-cache", "mountPath": CACHE_FOLDER},
        {"name": "shm", "mountPath": "/dev/shm"},
        *model.mounts,
    ]
    if deployment.spec.api_keys_secret_ref is not None:
        mounts.append({"name": "api-keys", "mountPath": API_KEYS_FOLDER, "readOnly": True})
    return mounts


def _environment(deployment: ModelDeployment, model: ModelSource) -> dict[str, str]:
    spec = deployment.spec
    room = int(parse_quantity(spec.adapter_cache_size) * 100) * int(_CACHE_SHARE * 100) // 10_000
    keys = {"CODETUNE_API_KEYS": API_KEYS_FOLDER} if spec.api_keys_secret_ref is not None else {}
    # A request is no limit: a pod sees all cores of its node, and is not to start a thread for each of them.
    cpus = {"CODETUNE_CPUS": str(math.ceil(parse_quantity(spec.resources.cpu)))} if spec.resources.cpu else {}
    return {
        ENV_MODEL: model.path,
        "CODETUNE_BASE_MODEL": canonical_model(spec.base_model),
        "CODETUNE_ADAPTERS": f"{ADAPTERS_FOLDER}/{ADAPTERS_KEY}",
        "CODETUNE_ADAPTER_TOKEN_FILE": f"{TOKEN_FOLDER}/{TOKEN_KEY}",
        "CODETUNE_ADAPTER_CACHE": f"{CACHE_FOLDER}/copies",
        "CODETUNE_ADAPTER_CACHE_BYTES": str(max(1, room)),
        **keys,
        **cpus,
        "CODETUNE_DEVICE": "cuda" if spec.resources.gpus else "cpu",
        "HF_HUB_OFFLINE": "1",
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
        "VLLM_NO_USAGE_STATS": "1",
        **{name: f"{SCRATCH}/cache/{name.lower()}" for name in _CACHES},
    }


def _build_variable(entry: EnvVar) -> Obj:
    source = entry.value_from
    if source is None:
        return {"name": entry.name, "value": entry.value or ""}
    return {"name": entry.name, "valueFrom": source.to_wire()}
