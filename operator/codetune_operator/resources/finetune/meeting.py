"""How the pods of a run on several nodes find each other, and who else reaches them: nobody. Pure."""

import hashlib
from collections.abc import Mapping
from typing import Any

from codetune_api.contracts import ENV_LEADER
from codetune_api.finetune import FineTune

from codetune_operator.resources.pods import owner_reference

Obj = dict[str, Any]


def meeting_name(finetune: FineTune) -> str | None:
    """Name of the headless Service under which the pods have names; None on one node."""
    if finetune.spec.resources.nodes == 1:
        return None
    return f"{finetune.metadata.name}-nodes-{_digest(finetune)[:6]}"


def meeting_env(finetune: FineTune, job_name: str) -> dict[str, str]:
    """Where the pods meet: at the one with index 0, by the name that it keeps over restarts."""
    service = meeting_name(finetune)
    if service is None:
        return {}
    return {ENV_LEADER: f"{job_name}-0.{service}.{finetune.metadata.namespace}.svc:{_port(finetune)}"}


def build_meeting(finetune: FineTune, labels: Mapping[str, str]) -> tuple[Obj, ...]:
    """The headless Service, and the policy that lets only the run's own pods in: what they say is not encrypted.

    Args:
        finetune: The run.
        labels: Labels of its pods.
    """
    name = meeting_name(finetune)
    if name is None:
        return ()
    metadata = {
        "name": name,
        "namespace": finetune.metadata.namespace,
        "labels": dict(labels),
        "ownerReferences": [owner_reference(finetune)],
    }
    service = {
        "clusterIP": "None",
        "selector": dict(labels),
        # They have to meet before anyone of them is ready.
        "publishNotReadyAddresses": True,
        "ports": [{"name": "meeting", "port": _port(finetune), "protocol": "TCP"}],
    }
    policy = {
        "podSelector": {"matchLabels": dict(labels)},
        "policyTypes": ["Ingress"],
        "ingress": [{"from": [{"podSelector": {"matchLabels": dict(labels)}}]}],
    }
    return (
        {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": service},
        {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": policy},
    )


def _port(finetune: FineTune) -> int:
    """Another one for each run: on a local cluster, pods share the host's ports."""
    return 20_000 + int(_digest(finetune)[:8], 16) % 10_000


def _digest(finetune: FineTune) -> str:
    return hashlib.sha256(finetune.metadata.uid.encode()).hexdigest()
