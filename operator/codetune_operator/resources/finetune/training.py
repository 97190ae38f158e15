"""The training Job of a FineTune and its configuration, as whole objects. Pure."""

import hashlib
from dataclasses import replace
from typing import Any

from codetune_api.artifacts import CLAIM_URI, dataset_folder, finetune_folder, model_pin, store_path, store_uri
from codetune_api.contracts import StartAdapter, TrainConfig
from codetune_api.digests import canonical, digest_value
from codetune_api.finetune import DatasetStatus, FineTune, ResumedFrom
from codetune_api.metadata import LABEL_FINETUNE, LABEL_KUEUE_QUEUE, labels

from codetune_operator.resources.finetune.meeting import build_meeting, meeting_env, meeting_name
from codetune_operator.resources.models import (
    FETCH_CONFIG_KEY,
    ModelSource,
    build_fetch_config,
    build_fetch_containers,
    canonical_model,
    count_threads,
    model_environment,
)
from codetune_operator.resources.pods import CONFIG, CONFIG_KEY, container, owner_reference, pod_template
from codetune_operator.settings import Settings

Obj = dict[str, Any]

CONTAINER = "train"
PERMANENT_EXIT = 64
"""The trainer's exit code when another attempt is pointless."""
STOPPED_EXIT = 143
"""The trainer's exit code when it was stopped and has written its checkpoint."""
PEER_LOST_EXIT = 75
"""The trainer's exit code when only another pod of the run has failed, which counts alone."""
_UNCOUNTED_EXITS: Obj = {"operator": "In", "values": [PEER_LOST_EXIT, STOPPED_EXIT]}
"""Of the trainer alone: an init container that ends so has lost nobody and written no checkpoint, and counts."""
GRACE_SECONDS = 90
"""Time to write a checkpoint after SIGTERM."""
_COMPONENT = "train"


def training_job_name(finetune: FineTune, dataset: DatasetStatus) -> str:
    """The Job's name: another one for each edit that needs another Job, the same after an upgrade of the operator.

    What the pod is made of besides (images, settings of the operator) is left out on purpose: a run that is under way
    or done is not touched by an upgrade.
    """
    spec = finetune.spec.model_dump(
        mode="json",
        by_alias=True,
        exclude_defaults=True,
        exclude={"suspend", "ttl_seconds_after_finished", "deletion_policy"},
    )
    digest = digest_value([finetune.metadata.uid, dataset.revision, spec])
    alone, together = training_job_prefixes(finetune)
    return (alone if finetune.spec.resources.nodes == 1 else together) + digest.removeprefix("sha256:")[:8]


def training_job_prefixes(finetune: FineTune) -> tuple[str, str]:
    """What all names of a run's Jobs begin with, on one node and on several: there the pods have the Job's name with
    their index as their own, and no name may be longer than 63 characters."""
    name = finetune.metadata.name
    return f"{name}-train-", f"{name[:45].rstrip('-')}-train-"


def run_nonce(finetune: FineTune, job_name: str) -> str:
    """Marks the run's protocol lines; nothing that a training file could know."""
    return hashlib.sha256(canonical(["train", finetune.metadata.uid, job_name])).hexdigest()[:32]


def pin_dataset(finetune: FineTune, revision: str, store: str = CLAIM_URI) -> DatasetStatus:
    """The dataset that this run is made on, whatever the Project finds later."""
    folder = dataset_folder(finetune.metadata.namespace, finetune.spec.project_ref.name, revision)
    return DatasetStatus(revision=revision, uri=store_uri(folder, store))


def build_train_config(
    finetune: FineTune,
    dataset: DatasetStatus,
    job_name: str,
    start: ResumedFrom | None = None,
    memory_deaths: int = 0,
    store: str = CLAIM_URI,
) -> TrainConfig:
    """Everything that the trainer is told."""
    metadata, spec = finetune.metadata, finetune.spec
    return TrainConfig(
        nonce=run_nonce(finetune, job_name),
        namespace=metadata.namespace,
        name=metadata.name,
        dataset=dataset_folder(metadata.namespace, spec.project_ref.name, dataset.revision),
        dataset_revision=dataset.revision,
        output=finetune_folder(metadata.namespace, metadata.name, metadata.uid),
        base_model=canonical_model(spec.base_model),
        device="cuda" if spec.resources.gpus else "cpu",
        gpus=spec.resources.gpus,
        nodes=spec.resources.nodes,
        preset=spec.preset,
        lora=spec.lora,
        training=spec.training,
        checkpoints=spec.checkpoints,
        start=_build_start(start, store),
        memory_deaths=memory_deaths,
    )


def _build_start(start: ResumedFrom | None, store: str) -> StartAdapter | None:
    if start is None:
        return None
    path = store_path(start.uri, store) or start.uri
    return StartAdapter(fine_tune=start.fine_tune, checkpoint=start.checkpoint, path=path, digest=start.digest)


def build_training(
    finetune: FineTune,
    dataset: DatasetStatus,
    model: ModelSource,
    settings: Settings,
    start: ResumedFrom | None = None,
    memory_deaths: int = 0,
) -> tuple[Obj, ...]:
    """The ConfigMap and the Job of a run, and on several nodes what lets these meet, in the order of applying."""
    name = training_job_name(finetune, dataset)
    config = build_train_config(finetune, dataset, name, start, memory_deaths, settings.store.uri)
    data = {CONFIG_KEY: config.model_dump_json(by_alias=True, exclude_none=True, indent=2)}
    if model.origin is not None:
        # An adapter goes on with the very base that it was made on, whatever the branch has become since.
        pinned = start.base_model if start is not None else None
        same = replace(model.hub, revision=pinned.commit) if pinned is not None and model.hub is not None else None
        fetch = build_fetch_config(
            same or model.origin,
            nonce=config.nonce,
            namespace=config.namespace,
            name=finetune.metadata.name,
            pin=model_pin(config.output),
            training=True,
            train_embeddings=bool(finetune.spec.lora.train_embeddings),
        )
        data[FETCH_CONFIG_KEY] = fetch.model_dump_json(by_alias=True, exclude_none=True, indent=2)
    metadata: Obj = {
        "name": name,
        "namespace": finetune.metadata.namespace,
        "labels": training_labels(finetune),
        "ownerReferences": [owner_reference(finetune)],
    }
    config_map = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}
    queue = finetune.spec.scheduling.queue_name
    job_labels = {**metadata["labels"], **({LABEL_KUEUE_QUEUE: queue} if queue else {})}
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {**metadata, "labels": job_labels},
        "spec": _job_spec(finetune, name, model, settings),
    }
    return *build_meeting(finetune, training_labels(finetune)), config_map, job


def training_labels(finetune: FineTune) -> dict[str, str]:
    """Labels of everything that belongs to the run."""
    return labels(_COMPONENT, finetune.metadata.name, {LABEL_FINETUNE: finetune.metadata.name})


def _job_spec(finetune: FineTune, name: str, model: ModelSource, settings: Settings) -> Obj:
    spec, nodes = finetune.spec, finetune.spec.resources.nodes
    job: Obj = {
        # A cause that ends all pods at once, as a store that is away, counts once for each.
        "backoffLimit": spec.retries * nodes,
        "completions": nodes,
        "parallelism": nodes,
        # A queued run is let in by Kueue, which alone lifts the suspension.
        "suspend": spec.suspend or spec.scheduling.queue_name is not None,
        "podReplacementPolicy": "Failed",
        "podFailurePolicy": {
            "rules": [
                {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                {"action": "Ignore", "onExitCodes": {"containerName": CONTAINER, **_UNCOUNTED_EXITS}},
                {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [PERMANENT_EXIT]}},
            ]
        },
        "template": _pod_template(finetune, name, model, settings),
    }
    if nodes > 1:
        job["completionMode"] = "Indexed"
    if spec.active_deadline_seconds is not None:
        job["activeDeadlineSeconds"] = spec.active_deadline_seconds
    return job


def switch_training(built: Obj, live: Obj, *, suspend: bool) -> Obj:
    """A Job that exists, suspended or let go on; what can't be changed of it stays as it is."""
    fixed = {key: live["spec"][key] for key in _FIXED_FIELDS if key in live["spec"]}
    return {**built, "spec": {**built["spec"], **fixed, "suspend": suspend}}


_FIXED_FIELDS = (
    *("template", "completions", "parallelism", "completionMode"),
    *("podFailurePolicy", "podReplacementPolicy", "backoffLimit"),
)


def _pod_template(finetune: FineTune, name: str, model: ModelSource, settings: Settings) -> Obj:
    spec = finetune.spec
    config_mount = {"name": "config", "mountPath": CONFIG, "readOnly": True}
    mounts, volumes = [config_mount, *model.mounts], [{"name": "config", "configMap": {"name": name}}, *model.volumes]
    if spec.resources.gpus:
        # NCCL and the data loader need more shared memory than the container runtime's 64 MiB.
        mounts.append({"name": "shm", "mountPath": "/dev/shm"})
        volumes.append({"name": "shm", "emptyDir": {"medium": "Memory"}})
    train = container(
        name=CONTAINER,
        image=settings.images.trainer,
        command=["python", "-m", "codetune_trainer", "train"],
        settings=settings,
        env={**model_environment(model), **meeting_env(finetune, name)},
        more_env=count_threads(spec.resources),
        mounts=mounts,
        resources=spec.resources,
    )
    return pod_template(
        labels=training_labels(finetune),
        containers=[train],
        init_containers=build_fetch_containers(model, spec.model_secret_ref, config_mount, settings),
        volumes=volumes,
        scheduling=spec.scheduling,
        settings=settings,
        grace_seconds=GRACE_SECONDS,
        subdomain=meeting_name(finetune),
    )
