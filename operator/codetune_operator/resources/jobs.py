"""Jobs of Codetune that run to their end on their own: their common shape and their configuration. Pure."""

from collections.abc import Mapping
from typing import Any

from codetune_api.contracts import RunConfig

from codetune_operator.resources.pods import CONFIG, CONFIG_KEY

Obj = dict[str, Any]

PERMANENT_EXIT = 64
"""A program's exit code when another attempt is pointless."""


def config_mount() -> Obj:
    """Where a container finds its configuration."""
    return {"name": "config", "mountPath": CONFIG, "readOnly": True}


def config_volume(name: str) -> Obj:
    """The pod's volume with its configuration."""
    return {"name": "config", "configMap": {"name": name}}


def build_config(metadata: Obj, config: RunConfig, more: Mapping[str, RunConfig] | None = None) -> Obj:
    """The ConfigMap with a Job's configuration; it has the Job's name. `more`: those of its init containers, by key."""
    configs = {CONFIG_KEY: config, **(more or {})}
    data = {key: entry.model_dump_json(by_alias=True, exclude_none=True, indent=2) for key, entry in configs.items()}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def build_job(metadata: Obj, template: Obj, *, retries: int, deadline_seconds: int, **more: Any) -> Obj:
    """A Job with one pod at a time.

    Args:
        metadata: Name, namespace, labels and owner.
        template: The pod template.
        retries: How often a pod that died is followed by another.
        deadline_seconds: Longest time for all attempts together, in seconds.
        more: Further fields of the Job's spec.
    """
    spec = {
        "backoffLimit": retries,
        "activeDeadlineSeconds": deadline_seconds,
        "completions": 1,
        "parallelism": 1,
        "podReplacementPolicy": "Failed",
        "podFailurePolicy": {
            "rules": [
                {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [PERMANENT_EXIT]}},
            ]
        },
        "template": template,
        **more,
    }
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec}
