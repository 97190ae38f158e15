"""The scan Job of a Project and its configuration, as whole objects. Pure."""

import hashlib
from collections.abc import Sequence
from typing import Any

from codetune_api.artifacts import project_folder, sources_folder
from codetune_api.common import Failure, SecretRef
from codetune_api.contracts import RunConfig, ScanConfig
from codetune_api.digests import canonical, digest_value
from codetune_api.metadata import ANNOTATION_CONFIG_DIGEST, ANNOTATION_RESCAN, LABEL_PROJECT, labels
from codetune_api.project import Project, Source

from codetune_operator.resources.jobs import build_config, build_job, config_mount, config_volume
from codetune_operator.resources.models import (
    FETCH_CONFIG_KEY,
    ModelSource,
    build_fetch_config,
    build_fetch_containers,
    count_threads,
    locate_model,
    model_environment,
)
from codetune_operator.resources.pods import CREDENTIALS, VOLUMES, container, owner_reference, pod_template
from codetune_operator.settings import Settings

Obj = dict[str, Any]

CONTAINER = "scan"
_RETRIES = 2
_DEADLINE_SECONDS = 6 * 3600
"""Longest time for all attempts of a scan together."""


def rules_digest(project: Project) -> str:
    """What a dataset is made from: sources, rules and holdout."""
    asked = project.spec.model_dump(
        mode="json", by_alias=True, exclude_defaults=True, exclude={"suspend", "schedule", "time_zone"}
    )
    return digest_value(asked)


def fetch_digest(project: Project) -> str:
    """What sources are fetched for: the sources, and everything that asks for fetching the same ones again."""
    sources = [source.model_dump(mode="json", by_alias=True, exclude_defaults=True) for source in project.spec.sources]
    return digest_value([sources, *_asked_by(project)])


def scan_digest(project: Project) -> str:
    """What a scan is made from: its dataset's rules, and everything that asks for another scan by the same rules."""
    return digest_value([rules_digest(project), *_asked_by(project)])


def _asked_by(project: Project) -> list[Any]:
    status, annotations = project.status, project.metadata.annotations
    return [annotations.get(ANNOTATION_RESCAN, ""), status.last_scheduled_at or "", status.retries or 0]


def _fetched(project: Project) -> dict[str, str]:
    """What need not be fetched because nothing but rules changed since: source → commit or digest."""
    if project.status.fetch_digest != fetch_digest(project):
        return {}
    read = (source for source in project.status.sources if not source.reason)
    return {source.name: version for source in read if (version := source.commit or source.digest)}


def scan_job_name(project: Project) -> str:
    """One name for each thing to scan, so that the same scan is never started twice."""
    digest = hashlib.sha256(canonical([project.metadata.uid, scan_digest(project)])).hexdigest()
    return f"{project.metadata.name}-scan-{digest[:8]}"


def scan_nonce(project: Project) -> str:
    """Marks the scan's protocol lines; nothing that a scanned file could know."""
    return hashlib.sha256(canonical(["scan", project.metadata.uid, scan_digest(project)])).hexdigest()[:32]


def build_scan_config(project: Project, keep: Sequence[str] = ()) -> ScanConfig:
    """Everything that the scan is told; `keep` are the revisions of earlier datasets that stay in the store."""
    metadata, spec = project.metadata, project.spec
    resources = spec.files.quality.resources if spec.files.quality is not None else None
    return ScanConfig(
        nonce=scan_nonce(project),
        namespace=metadata.namespace,
        name=metadata.name,
        sources=spec.sources,
        files=spec.files,
        holdout=spec.holdout,
        output=project_folder(metadata.namespace, metadata.name),
        cache=sources_folder(metadata.namespace, metadata.name),
        fetched=_fetched(project),
        keep=list(keep),
        device="cuda" if resources is not None and resources.gpus else "cpu",
    )


def locate_quality_model(project: Project, settings: Settings) -> ModelSource | Failure | None:
    """How the scan reaches the model of `files.quality`, or why it can't; None when spec has no such rule."""
    quality = project.spec.files.quality
    return locate_model(quality.base_model, settings) if quality is not None else None


def build_scan(
    project: Project, settings: Settings, keep: Sequence[str] = (), model: ModelSource | None = None
) -> tuple[Obj, Obj]:
    """The ConfigMap and the Job, in the order in which they are applied.

    Args:
        project: What is scanned.
        settings: The operator's settings.
        keep: Revisions of earlier datasets that stay in the store.
        model: As `locate_quality_model` found it.
    """
    name = scan_job_name(project)
    marks = labels("scan", project.metadata.name, {LABEL_PROJECT: project.metadata.name})
    metadata: Obj = {
        "name": name,
        "namespace": project.metadata.namespace,
        "labels": marks,
        "annotations": {ANNOTATION_CONFIG_DIGEST: scan_digest(project)},
        "ownerReferences": [owner_reference(project)],
    }
    mounts = [mount for index, source in enumerate(project.spec.sources) for mount in _mounts(index, source)]
    volumes = [volume for index, source in enumerate(project.spec.sources) for volume in _volumes(index, source)]
    config = build_scan_config(project, keep)
    template = pod_template(
        labels=marks,
        containers=[_build_container(project, settings, [config_mount(), *mounts], model)],
        init_containers=build_fetch_containers(model, _model_secret(project), config_mount(), settings),
        volumes=[config_volume(name), *volumes, *(model.volumes if model is not None else ())],
        settings=settings,
    )
    job = build_job(metadata, template, retries=_RETRIES, deadline_seconds=_DEADLINE_SECONDS)
    return build_config(metadata, config, _fetch_configs(config, model)), job


def _build_container(project: Project, settings: Settings, mounts: list[Obj], model: ModelSource | None) -> Obj:
    quality = project.spec.files.quality
    resources = quality.resources if quality is not None and quality.resources is not None else settings.scan_resources
    return container(
        name=CONTAINER,
        image=settings.images.trainer,
        command=["python", "-m", "codetune_trainer", "scan"],
        settings=settings,
        resources=resources,
        env=model_environment(model) if model is not None else {},
        more_env=count_threads(resources) if model is not None else [],
        mounts=[*mounts, *(model.mounts if model is not None else ())],
    )


def _model_secret(project: Project) -> SecretRef | None:
    quality = project.spec.files.quality
    return quality.model_secret_ref if quality is not None else None


def _fetch_configs(config: ScanConfig, model: ModelSource | None) -> dict[str, RunConfig]:
    if model is None or model.origin is None:
        return {}
    fetch = build_fetch_config(
        model.origin, nonce=config.nonce, namespace=config.namespace, name=config.name, training=True
    )
    return {FETCH_CONFIG_KEY: fetch}


def _volumes(index: int, source: Source) -> list[Obj]:
    volumes: list[Obj] = []
    if source.credentials_secret_ref is not None:
        # 0440: the pod's group reads it, nobody else does. Optional: a pod whose Secret does not exist would not start
        # at all, for any source; so it does, and the scan says which source lacks it.
        secret = {"secretName": source.credentials_secret_ref.name, "defaultMode": 0o440, "optional": True}
        volumes.append({"name": f"credentials-{index}", "secret": secret})
    if source.volume is not None:
        claim = {"claimName": source.volume.claim_name, "readOnly": True}
        volumes.append({"name": f"source-{index}", "persistentVolumeClaim": claim})
    return volumes


def _mounts(index: int, source: Source) -> list[Obj]:
    mounts: list[Obj] = []
    if source.credentials_secret_ref is not None:
        folder = f"{CREDENTIALS}/{source.name}"
        mounts.append({"name": f"credentials-{index}", "mountPath": folder, "readOnly": True})
    if source.volume is not None:
        mounts.append({"name": f"source-{index}", "mountPath": f"{VOLUMES}/{source.name}", "readOnly": True})
    return mounts
