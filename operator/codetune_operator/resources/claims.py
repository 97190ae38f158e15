"""The claim that is a namespace's artifact store, where no bucket is. Pure."""

from typing import Any

from codetune_api.metadata import ARTIFACTS_CLAIM, labels

from codetune_operator.settings import Settings


def build_missing_claim(claim: dict[str, Any] | None, namespace: str, settings: Settings) -> tuple[dict[str, Any], ...]:
    """The claim where it is needed and not there."""
    return () if claim is not None or settings.store.bucket is not None else (build_claim(namespace, settings),)


def build_claim(namespace: str, settings: Settings) -> dict[str, Any]:
    """The claim; it has no owner, because it outlives every resource of the namespace."""
    store = settings.store
    spec: dict[str, Any] = {
        "accessModes": [store.access_mode],
        "resources": {"requests": {"storage": store.size}},
    }
    if store.storage_class_name is not None:
        spec["storageClassName"] = store.storage_class_name
    metadata = {"name": ARTIFACTS_CLAIM, "namespace": namespace, "labels": labels("store", ARTIFACTS_CLAIM, {})}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec}
