"""Who has to look again when an object changed. Pure."""

from collections.abc import Iterator, Mapping
from typing import Any

from codetune_api.metadata import LABEL_FINETUNE, LABEL_MODELDEPLOYMENT, LABEL_PROJECT

from codetune_operator.cluster.kinds import CLAIM, FINETUNE, MODELDEPLOYMENT, NODE, PROJECT
from codetune_operator.handlers.keys import Key, key_of
from codetune_operator.handlers.storing import Store

Obj = dict[str, Any]

OWNERS: Mapping[str, str] = {
    LABEL_PROJECT: PROJECT.name,
    LABEL_FINETUNE: FINETUNE.name,
    LABEL_MODELDEPLOYMENT: MODELDEPLOYMENT.name,
}
"""Label on a child → kind of its owner."""
RECONCILED = (PROJECT, FINETUNE, MODELDEPLOYMENT)


def concerned(obj: Obj, store: Store) -> set[Key]:
    """The resources whose reconciler looks at this object."""
    kind = obj["kind"]
    if kind == NODE.name:
        return {key_of(other) for reconciled in RECONCILED for other in store.everything(reconciled) if _waits(other)}
    if kind == CLAIM.name:
        namespace = obj["metadata"]["namespace"]
        return {key_of(other) for reconciled in RECONCILED for other in store.select(reconciled, namespace)}
    if kind in OWNERS.values():
        return {key_of(obj), *_dependents(obj, store)}
    return set(_owners(obj))


def node_offer(node: Obj) -> Any:
    """What makes a node worth another look: what it offers and whether it takes pods; not its heartbeats."""
    status, spec = node.get("status", {}), node.get("spec", {})
    ready = [entry["status"] for entry in status.get("conditions", []) if entry["type"] == "Ready"]
    return [status.get("allocatable"), ready, spec.get("unschedulable"), spec.get("taints")]


def _waits(obj: Obj) -> bool:
    failure = (obj.get("status") or {}).get("failure") or {}
    return failure.get("reason") == "Unschedulable"


def _owners(obj: Obj) -> Iterator[Key]:
    metadata = obj["metadata"]
    for label, kind in OWNERS.items():
        if name := (metadata.get("labels") or {}).get(label):
            yield Key(kind, metadata["namespace"], name)


def _dependents(obj: Obj, store: Store) -> Iterator[Key]:
    """Others that look at this resource: runs on a Project; deployments that serve a FineTune; a Project that waits
    for its runs so that it can go."""
    namespace, name = obj["metadata"]["namespace"], obj["metadata"]["name"]
    if obj["kind"] == PROJECT.name:
        for finetune in store.select(FINETUNE, namespace):
            if (finetune.get("spec") or {}).get("projectRef", {}).get("name") == name:
                yield key_of(finetune)
    elif obj["kind"] == FINETUNE.name:
        for deployment in store.select(MODELDEPLOYMENT, namespace):
            adapters = (deployment.get("spec") or {}).get("adapters") or []
            if any((adapter.get("fineTuneRef") or {}).get("name") == name for adapter in adapters):
                yield key_of(deployment)
        project = store.get(PROJECT, namespace, (obj.get("spec") or {}).get("projectRef", {}).get("name", ""))
        if project is not None and project["metadata"].get("deletionTimestamp"):
            yield key_of(project)
