"""Pods as Codetune makes them: hardened, without an API token, with the environment that the programs expect. Pure.

They fulfil the Pod Security Standard "restricted". Every path reaches a program through environment or arguments.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from codetune_api.common import Resource, Resources, Scheduling
from codetune_api.contracts import (
    ENV_CONFIG,
    ENV_CREDENTIALS,
    ENV_FILE_ROOT,
    ENV_SCRATCH,
    ENV_STORE,
    ENV_TERMINATION_LOG,
    ENV_VOLUMES,
)
from codetune_api.metadata import ARTIFACTS_CLAIM

from codetune_operator.resources.buckets import (
    bucket_environment,
    bucket_mounts,
    bucket_volumes,
    build_store_volume,
    speaks_s3,
)
from codetune_operator.resources.folding import fold_claims
from codetune_operator.settings import Settings

Obj = dict[str, Any]

CONFIG = "/codetune/config"
CONFIG_KEY = "config.json"
STORE = "/codetune/store"
SCRATCH = "/codetune/scratch"
CREDENTIALS = "/codetune/credentials"
VOLUMES = "/codetune/volumes"
TERMINATION_LOG = "/dev/termination-log"
_STORE_VOLUME = "store"
_USER = 65532
"""The images' user; also the group that volumes are made writable for."""


def owner_reference(resource: Resource) -> Obj:
    """Makes a child go when its owner goes."""
    return {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "name": resource.metadata.name,
        "uid": resource.metadata.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


def container(
    *,
    name: str,
    image: str,
    command: Sequence[str],
    settings: Settings,
    resources: Resources,
    env: Mapping[str, str] | None = None,
    more_env: Sequence[Obj] = (),
    mounts: Sequence[Obj] = (),
    store: Literal["ReadWrite", "ReadOnly", "None"] = "ReadWrite",
    reads_buckets: bool = False,
) -> Obj:
    """A container with the store and a scratch folder mounted; where the store is a bucket, it can reach that.

    Args:
        name: Its name in the pod.
        image: What it runs.
        command: Program and fixed arguments.
        settings: The operator's settings.
        resources: What it asks of its node.
        env: Variables on top of the standard ones; the same name wins.
        more_env: Entries that are no plain values, e.g. from a Secret.
        mounts: Mounts on top of store and scratch.
        store: What it may do in the store.
        reads_buckets: Whether it reaches buckets also where the store is none.
    """
    has_store = store != "None"
    variables = {**_environment(settings), **(env or {})}
    if not has_store:
        del variables[ENV_STORE]
    reaches = (has_store and settings.store.bucket is not None) or reads_buckets
    access = bucket_environment(settings) if reaches else []
    return {
        "name": name,
        "image": image,
        "imagePullPolicy": settings.images.pull_policy,
        "command": list(command),
        "env": [
            *({"name": key, "value": value} for key, value in variables.items()),
            *(entry for entry in access if entry["name"] not in variables),
            *more_env,
        ],
        "resources": resource_requirements(resources),
        "volumeMounts": [
            *([{"name": _STORE_VOLUME, "mountPath": STORE}] if store == "ReadWrite" else ()),
            *([{"name": _STORE_VOLUME, "mountPath": STORE, "readOnly": True}] if store == "ReadOnly" else ()),
            {"name": "scratch", "mountPath": SCRATCH},
            *(bucket_mounts(settings) if reaches else ()),
            *mounts,
        ],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "terminationMessagePath": TERMINATION_LOG,
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }


def pod_template(
    *,
    labels: Mapping[str, str],
    containers: Sequence[Obj],
    settings: Settings,
    init_containers: Sequence[Obj] = (),
    volumes: Sequence[Obj] = (),
    scheduling: Scheduling | None = None,
    restart_policy: Literal["Never", "Always"] = "Never",
    grace_seconds: int = 30,
    pull_secrets: Sequence[str] = (),
    subdomain: str | None = None,
) -> Obj:
    """A pod template around containers that `container` made.

    Args:
        labels: Labels of the pods.
        containers: Its containers.
        settings: The operator's settings.
        init_containers: What runs before them, one after the other.
        volumes: Volumes on top of store and scratch.
        scheduling: Where the pods may run.
        restart_policy: As in a pod.
        grace_seconds: Seconds between SIGTERM and SIGKILL.
        pull_secrets: Names of Secrets with registry credentials, besides those of the settings.
        subdomain: The headless Service under which each pod has a name.
    """
    everything = [*containers, *init_containers]
    reaches = speaks_s3(everything)
    spec: Obj = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "restartPolicy": restart_policy,
        "terminationGracePeriodSeconds": grace_seconds,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "runAsGroup": _USER,
            "fsGroup": _USER,
            # Else each start of a pod walks the whole store.
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": list(containers),
        "volumes": [*_common_volumes(everything, settings), *volumes],
        **_scheduling_fields(scheduling),
    }
    if reaches and settings.s3 is not None and settings.s3.service_account_name is not None:
        spec["serviceAccountName"] = settings.s3.service_account_name
    if restart_policy == "Always":
        # The kernel keeps signals that nobody handles from the first process of a PID namespace, which is then the
        # pod's own. Else a server that is told to end while it starts (vLLM takes minutes to load a model) would not
        # hear of it, and hold its GPUs, or a namespace that is being deleted, for the whole grace period.
        spec["shareProcessNamespace"] = True
    if subdomain is not None:
        spec["subdomain"] = subdomain
    if init_containers:
        spec["initContainers"] = list(init_containers)
    if names := [*dict.fromkeys([*settings.images.pull_secrets, *pull_secrets])]:
        spec["imagePullSecrets"] = [{"name": name} for name in names]
    return {"metadata": {"labels": dict(labels)}, "spec": fold_claims(spec)}


def _common_volumes(containers: Sequence[Obj], settings: Settings) -> list[Obj]:
    """Those that `container` has mounted by itself."""
    has_store = any(mount["name"] == _STORE_VOLUME for entry in containers for mount in entry["volumeMounts"])
    return [
        *([{"name": _STORE_VOLUME, **_store_volume(settings)}] if has_store else ()),
        {"name": "scratch", "emptyDir": {}},
        *(bucket_volumes(settings) if speaks_s3(containers) else ()),
    ]


def _store_volume(settings: Settings) -> Obj:
    if settings.store.bucket is not None:
        return build_store_volume(settings)
    return {"persistentVolumeClaim": {"claimName": ARTIFACTS_CLAIM}}


def resource_requirements(resources: Resources) -> Obj:
    """Requests and limits: memory and GPUs are limited, CPU is not, so that idle cores are used."""
    requests: Obj = {}
    limits: Obj = {}
    if resources.cpu is not None:
        requests["cpu"] = resources.cpu
    if resources.memory is not None:
        requests["memory"] = limits["memory"] = resources.memory
    if resources.gpus:
        requests[resources.gpu_resource] = limits[resources.gpu_resource] = str(resources.gpus)
    return {key: value for key, value in (("requests", requests), ("limits", limits)) if value}


def _environment(settings: Settings) -> dict[str, str]:
    env = {
        ENV_CONFIG: f"{CONFIG}/{CONFIG_KEY}",
        ENV_STORE: STORE,
        ENV_SCRATCH: SCRATCH,
        ENV_CREDENTIALS: CREDENTIALS,
        ENV_VOLUMES: VOLUMES,
        ENV_TERMINATION_LOG: TERMINATION_LOG,
        "HOME": SCRATCH,
        "TMPDIR": SCRATCH,
        "PYTHONUNBUFFERED": "1",
    }
    return {**env, ENV_FILE_ROOT: settings.file_root} if settings.file_root else env


def _scheduling_fields(scheduling: Scheduling | None) -> Obj:
    if scheduling is None:
        return {}
    fields: Obj = {
        "nodeSelector": dict(scheduling.node_selector),
        "tolerations": [entry.to_wire() for entry in scheduling.tolerations],
        "affinity": scheduling.affinity,
        "priorityClassName": scheduling.priority_class_name,
        "runtimeClassName": scheduling.runtime_class_name,
    }
    return {key: value for key, value in fields.items() if value}
