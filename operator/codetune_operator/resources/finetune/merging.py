"""The merge Job of a FineTune: writes its base model with an adapter merged in into the store. Pure.

It runs where training runs and needs what training needs of the base model, but no GPU: what takes time is reading and
writing the weights.
"""

import hashlib
from typing import Any

from codetune_api.artifacts import finetune_folder, merged_folder, model_pin, store_path
from codetune_api.common import Resources
from codetune_api.contracts import ENV_MODEL, MergeConfig
from codetune_api.digests import digest_value
from codetune_api.finetune import CheckpointStatus, FineTune
from codetune_api.metadata import LABEL_FINETUNE, labels

from codetune_operator.resources.jobs import build_config, build_job, config_mount, config_volume
from codetune_operator.resources.models import (
    FETCH_CONFIG_KEY,
    ModelSource,
    build_fetch_config,
    build_fetch_containers,
    canonical_model,
)
from codetune_operator.resources.pods import container, owner_reference, pod_template
from codetune_operator.settings import Settings

Obj = dict[str, Any]

CONTAINER = "merge"
_DEADLINE_SECONDS = 4 * 3600
_TTL_SECONDS = 3600
_RETRIES = 2


def merge_job_prefix(finetune: FineTune) -> str:
    """What the names of all merge Jobs of a FineTune begin with."""
    return f"{finetune.metadata.name}-merge-"


def merge_job_name(finetune: FineTune, request: str) -> str:
    """One name for each request."""
    digest = digest_value([finetune.metadata.uid, request]).removeprefix("sha256:")
    return f"{merge_job_prefix(finetune)}{digest[:8]}"


def merged_path(finetune: FineTune, checkpoint: str) -> str:
    """Where the merged model goes, below the store."""
    metadata = finetune.metadata
    return merged_folder(finetune_folder(metadata.namespace, metadata.name, metadata.uid), checkpoint)


def build_merge(
    finetune: FineTune, checkpoint: CheckpointStatus, request: str, model: ModelSource, settings: Settings
) -> tuple[Obj, Obj]:
    """The ConfigMap and the Job, in the order in which they are applied."""
    name, spec = merge_job_name(finetune, request), finetune.spec
    marks = labels(CONTAINER, finetune.metadata.name, {LABEL_FINETUNE: finetune.metadata.name})
    metadata: Obj = {
        "name": name,
        "namespace": finetune.metadata.namespace,
        "labels": marks,
        "ownerReferences": [owner_reference(finetune)],
    }
    merge = container(
        name=CONTAINER,
        image=settings.images.trainer,
        command=["python", "-m", "codetune_trainer", "merge"],
        settings=settings,
        env={ENV_MODEL: model.path, "HF_HUB_OFFLINE": "1"},
        mounts=[config_mount(), *model.mounts],
        resources=Resources(gpus=0, cpu=spec.resources.cpu, memory=spec.resources.memory),
    )
    template = pod_template(
        labels=marks,
        containers=[merge],
        init_containers=build_fetch_containers(model, spec.model_secret_ref, config_mount(), settings),
        volumes=[config_volume(name), *model.volumes],
        scheduling=spec.scheduling,
        settings=settings,
    )
    job = build_job(
        metadata, template, retries=_RETRIES, deadline_seconds=_DEADLINE_SECONDS, ttlSecondsAfterFinished=_TTL_SECONDS
    )
    return _build_configs(finetune, checkpoint, request, model, metadata, settings), job


def _build_configs(
    finetune: FineTune,
    checkpoint: CheckpointStatus,
    request: str,
    model: ModelSource,
    metadata: Obj,
    settings: Settings,
) -> Obj:
    own, spec = finetune.metadata, finetune.spec
    nonce = hashlib.sha256(f"merge/{own.uid}/{request}".encode()).hexdigest()[:32]
    config = MergeConfig(
        nonce=nonce,
        namespace=own.namespace,
        name=own.name,
        checkpoint=checkpoint.name,
        adapter=store_path(checkpoint.uri, settings.store.uri) or checkpoint.uri,
        digest=checkpoint.digest,
        base_model=canonical_model(spec.base_model),
        output=merged_path(finetune, checkpoint.name),
    )
    built = build_config(metadata, config)
    if model.origin is not None:
        # The commit that the run was made on, as it keeps it.
        pin = model_pin(finetune_folder(own.namespace, own.name, own.uid))
        fetch = build_fetch_config(model.origin, nonce=nonce, namespace=own.namespace, name=own.name, pin=pin)
        built["data"][FETCH_CONFIG_KEY] = fetch.model_dump_json(by_alias=True, exclude_none=True, indent=2)
    return built
