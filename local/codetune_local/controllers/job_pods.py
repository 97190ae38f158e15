"""Building a Job's pods. Pure."""

import copy

from codetune_local.controllers.job_indexes import INDEX_KEY
from codetune_local.controllers.naming import child_name
from codetune_local.machinery.objects import Obj, name_of, namespace_of, owner_reference, uid_of

TRACKING_FINALIZER = "batch.kubernetes.io/job-tracking"
ENV_INDEX = "JOB_COMPLETION_INDEX"


def build_job_pod(job: Obj, index: int | None, suffix: str) -> Obj:
    """The next pod of a Job; with a completion index when the Job is Indexed."""
    template = copy.deepcopy(job["spec"]["template"])
    spec, given = template["spec"], template.get("metadata") or {}
    name = name_of(job) if index is None else f"{name_of(job)}-{index}"
    metadata: Obj = {
        "name": child_name(name, suffix),
        "namespace": namespace_of(job),
        "labels": _labels(job) | (given.get("labels") or {}),
        "annotations": dict(given.get("annotations") or {}),
        "finalizers": [*(given.get("finalizers") or []), TRACKING_FINALIZER],
        "ownerReferences": [owner_reference(job)],
    }
    if index is not None:
        metadata["annotations"][INDEX_KEY] = metadata["labels"][INDEX_KEY] = str(index)
        spec["hostname"] = name
        for container in [*spec["containers"], *(spec.get("initContainers") or [])]:
            _add_index(container)
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def _labels(job: Obj) -> dict[str, str]:
    uid, name = uid_of(job), name_of(job)
    prefix = "batch.kubernetes.io"
    return {f"{prefix}/controller-uid": uid, f"{prefix}/job-name": name, "controller-uid": uid, "job-name": name}


def _add_index(container: Obj) -> None:
    if any(entry["name"] == ENV_INDEX for entry in container.get("env") or []):
        return
    source = {"fieldRef": {"apiVersion": "v1", "fieldPath": f"metadata.labels['{INDEX_KEY}']"}}
    container["env"] = [*(container.get("env") or []), {"name": ENV_INDEX, "valueFrom": source}]
