"""Who has to look again when an object changed. Pure."""

from collections.abc import Iterator, Mapping
from typing import Any

from codetune_api.metadata import LABEL_COMPONENT, LABEL_FINETUNE, LABEL_MODELDEPLOYMENT, LABEL_PROJECT, LABEL_TEAM

from codetune_operator.cluster.kinds import CLAIM, FINETUNE, MODELDEPLOYMENT, NODE, POD, PROJECT, TEAM
from codetune_operator.handlers.keys import Key, key_of, store_key
from codetune_operator.handlers.storing import Store
from codetune_operator.reconcile.modeldeployment.holding import find_holders
from codetune_operator.resources.store import COMPONENT

Obj = dict[str, Any]

OWNERS: Mapping[str, str] = {
    LABEL_PROJECT: PROJECT.name,
    LABEL_FINETUNE: FINETUNE.name,
    LABEL_MODELDEPLOYMENT: MODELDEPLOYMENT.name,
    LABEL_TEAM: TEAM.name,
}
"""Label on a child → kind of its owner."""
RECONCILED = (PROJECT, FINETUNE, MODELDEPLOYMENT, TEAM)
_STORING = (PROJECT, FINETUNE, MODELDEPLOYMENT)
"""Kinds whose pods mount the artifact store."""


def concerned(obj: Obj, store: Store) -> set[Key]:
    """The resources whose reconciler looks at this object."""
    kind = obj["kind"]
    if kind == NODE.name:
        return {key_of(other) for reconciled in RECONCILED for other in store.everything(reconciled) if _waits(other)}
    if kind == CLAIM.name:
        namespace = obj["metadata"]["namespace"]
        return {key_of(other) for storing in _STORING for other in store.select(storing, namespace)}
    if kind in OWNERS.values():
        return {key_of(obj), *_dependents(obj, store), *_store_services(obj)}
    return {*_owners(obj), *_store_services(obj)}


def node_offer(node: Obj) -> Any:
    """What makes a node worth another look: what it offers and whether it takes pods; not its heartbeats."""
    status, spec = node.get("status", {}), node.get("spec", {})
    ready = [entry["status"] for entry in status.get("conditions", []) if entry["type"] == "Ready"]
    return [status.get("allocatable"), ready, spec.get("unschedulable"), spec.get("taints")]


def _store_services(obj: Obj) -> Iterator[Key]:
    """The store service, for what it is there for and for what it is made of."""
    metadata = obj["metadata"]
    is_part = (metadata.get("labels") or {}).get(LABEL_COMPONENT) == COMPONENT and obj["kind"] != POD.name
    if is_part or obj["kind"] in {PROJECT.name, FINETUNE.name}:
        yield store_key(metadata["namespace"])


def _waits(obj: Obj) -> bool:
    failure = (obj.get("status") or {}).get("failure") or {}
    return failure.get("reason") == "Unschedulable"


def _owners(obj: Obj) -> Iterator[Key]:
    metadata = obj["metadata"]
    for label, kind in OWNERS.items():
        if name := (metadata.get("labels") or {}).get(label):
            yield Key(kind, metadata["namespace"], name)


def _dependents(obj: Obj, store: Store) -> Iterator[Key]:
    """Others that look at this resource: runs on a Project; deployments that serve a FineTune; runs that start from it;
    teams that complete in a Project or with a ModelDeployment; and who waits for it so that it can go itself: a Project
    for its runs, a FineTune for those who use its adapter."""
    namespace, name = obj["metadata"]["namespace"], obj["metadata"]["name"]
    for team in store.select(TEAM, namespace):
        if (obj["kind"], name) in set(_named(team)):
            yield key_of(team)
    if obj["kind"] == PROJECT.name:
        for finetune in store.select(FINETUNE, namespace):
            if (finetune.get("spec") or {}).get("projectRef", {}).get("name") == name:
                yield key_of(finetune)
    elif obj["kind"] == FINETUNE.name:
        for deployment in store.select(MODELDEPLOYMENT, namespace):
            if (deployment.get("spec") or {}).get("adapterSelector") or find_holders(name, [deployment]):
                yield key_of(deployment)
        project = store.get(PROJECT, namespace, (obj.get("spec") or {}).get("projectRef", {}).get("name", ""))
        if project is not None and project["metadata"].get("deletionTimestamp"):
            yield key_of(project)
        for other in store.select(FINETUNE, namespace):
            if _start_of(other) == name or (
                _start_of(obj) == other["metadata"]["name"] and other["metadata"].get("deletionTimestamp")
            ):
                yield key_of(other)
    elif obj["kind"] == MODELDEPLOYMENT.name:
        for finetune in store.select(FINETUNE, namespace):
            if finetune["metadata"].get("deletionTimestamp"):
                yield key_of(finetune)


def _start_of(finetune: Obj) -> str:
    """The FineTune whose adapter a run begins with."""
    found: str = (((finetune.get("spec") or {}).get("resumeFrom") or {}).get("fineTuneRef") or {}).get("name", "")
    return found


def _named(team: Obj) -> Iterator[tuple[str, str]]:
    """Kind and name of what a Team refers to."""
    spec = team.get("spec") or {}
    projects = spec.get("projects") or []
    for entry in projects:
        yield PROJECT.name, (entry.get("projectRef") or {}).get("name", "")
    for entry in (spec, *projects):
        reference = (entry.get("completionModel") or {}).get("deploymentRef") or {}
        yield MODELDEPLOYMENT.name, reference.get("name", "")
