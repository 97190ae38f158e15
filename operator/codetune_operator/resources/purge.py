"""The purge Job: removes what a deleted resource left in the store. Pure.

It has no owner, because its owner is what goes away; the operator removes it when it is done, and the cluster does
when nobody else did.
"""

import hashlib
from typing import Any

from codetune_api.artifacts import finetune_folder, project_folder
from codetune_api.common import Resource, Resources
from codetune_api.contracts import PurgeConfig
from codetune_api.finetune import FineTune
from codetune_api.metadata import LABEL_FINETUNE, LABEL_PROJECT, labels

from codetune_operator.resources.jobs import build_config, build_job, config_mount, config_volume
from codetune_operator.resources.pods import container, pod_template
from codetune_operator.settings import Settings

Obj = dict[str, Any]

_DEADLINE_SECONDS = 600
_TTL_SECONDS = 300
_RETRIES = 3
_RESOURCES = Resources(gpus=0, cpu="100m", memory="256Mi")


def purge_job_name(resource: Resource) -> str:
    """One name for each object, so that a second deletion of another object of this name gets its own Job."""
    digest = hashlib.sha256(resource.metadata.uid.encode()).hexdigest()
    return f"{resource.metadata.name}-purge-{digest[:8]}"


def artifact_folder(resource: Resource) -> str:
    """What a Project or FineTune has in the store."""
    metadata = resource.metadata
    if isinstance(resource, FineTune):
        return finetune_folder(metadata.namespace, metadata.name, metadata.uid)
    return project_folder(metadata.namespace, metadata.name)


def build_purge(resource: Resource, settings: Settings) -> tuple[Obj, Obj]:
    """The ConfigMap and the Job, in the order in which they are applied."""
    name = purge_job_name(resource)
    own = LABEL_FINETUNE if isinstance(resource, FineTune) else LABEL_PROJECT
    marks = labels("purge", resource.metadata.name, {own: resource.metadata.name})
    metadata: Obj = {"name": name, "namespace": resource.metadata.namespace, "labels": marks}
    config = PurgeConfig(
        nonce=hashlib.sha256(f"purge/{resource.metadata.uid}".encode()).hexdigest()[:32],
        namespace=resource.metadata.namespace,
        name=resource.metadata.name,
        paths=[artifact_folder(resource)],
    )
    purge = container(
        name="purge",
        image=settings.images.trainer,
        command=["python", "-m", "codetune_trainer", "purge"],
        settings=settings,
        resources=_RESOURCES,
        mounts=[config_mount()],
    )
    template = pod_template(labels=marks, containers=[purge], volumes=[config_volume(name)], settings=settings)
    job = build_job(
        metadata,
        template,
        retries=_RETRIES,
        deadline_seconds=_DEADLINE_SECONDS,
        ttlSecondsAfterFinished=_TTL_SECONDS,
    )
    return build_config(metadata, config), job
