"""PersistentVolumeClaims as folders: provisioning, protection, reclaiming. Planning is pure; the loop does the I/O."""

import asyncio
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

from codetune_local.kubelet.settings import NODE_NAME
from codetune_local.machinery.actions import Announcement
from codetune_local.machinery.client import ApiError, Client
from codetune_local.machinery.executing import delete_if_same, modify, write_status
from codetune_local.machinery.looping import Controller, itself
from codetune_local.machinery.objects import (
    Key,
    Obj,
    annotations_of,
    finalizers_of,
    is_being_deleted,
    name_of,
    namespace_of,
    uid_of,
)
from codetune_local.machinery.reading import get_or_none
from codetune_local.machinery.recording import Recorder

logger = logging.getLogger(__name__)
CLASS_NAME, PROVISIONER = "standard", "codetune.dev/local"
DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"
PROTECTION = "kubernetes.io/pvc-protection"
CLAIMS, VOLUMES, CLASSES = "persistentvolumeclaims", "persistentvolumes", "storageclasses.storage.k8s.io"
_RETRY_WHILE_USED = 2.0
_RETRY_WITHOUT_CLASS = 10.0
"""Seconds."""


def build_storage_class() -> Obj:
    """The default class."""
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": CLASS_NAME, "annotations": {DEFAULT_CLASS: "true"}},
        "provisioner": PROVISIONER,
        "reclaimPolicy": "Delete",
        "volumeBindingMode": "Immediate",
    }


def build_volume(claim: Obj, storage_class: Obj, folder: Path) -> Obj:
    """The PersistentVolume for a claim, bound to it from the start."""
    reference = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "namespace": namespace_of(claim),
        "name": name_of(claim),
        "uid": uid_of(claim),
    }
    metadata = {"name": f"pvc-{uid_of(claim)}", "annotations": {"pv.kubernetes.io/provisioned-by": PROVISIONER}}
    spec = {
        "accessModes": claim["spec"]["accessModes"],
        "capacity": {"storage": claim["spec"]["resources"]["requests"]["storage"]},
        "claimRef": reference,
        "hostPath": {"path": str(folder), "type": "DirectoryOrCreate"},
        "persistentVolumeReclaimPolicy": storage_class.get("reclaimPolicy", "Delete"),
        "storageClassName": name_of(storage_class),
        "volumeMode": "Filesystem",
    }
    return {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": metadata, "spec": spec}


def is_used(claim: Obj, pods: Sequence[Obj]) -> bool:
    """Whether a pod that is not over mounts the claim."""
    for pod in pods:
        if namespace_of(pod) != namespace_of(claim) or (pod.get("status") or {}).get("phase") in (
            "Succeeded",
            "Failed",
        ):
            continue
        for volume in pod["spec"].get("volumes") or []:
            if (volume.get("persistentVolumeClaim") or {}).get("claimName") == name_of(claim):
                return True
    return False


class ClaimKeeper:
    """Binds claims to folders below the state folder, and removes the folders with the claims."""

    def __init__(self, client: Client, folder: Path, recorder: Recorder) -> None:
        self._client = client
        self._folder = folder
        self._recorder = recorder

    def controllers(self) -> list[Controller]:
        """The loops for claims and for volumes."""
        claims = {CLAIMS: itself, "pods": _claims_of_pod}
        return [
            Controller("persistentvolumeclaim", claims, self.reconcile_claim),
            Controller("persistentvolume", {VOLUMES: itself}, self.reconcile_volume),
        ]

    async def reconcile_claim(self, key: Key) -> float | None:
        """Bind one claim, or let it go."""
        claim = await get_or_none(self._client, CLAIMS, key[1], key[0])
        if claim is None:
            volumes = await self._client.list(VOLUMES)
            gone = (volume for volume in volumes if _is_claimed_by(volume, key))
            for volume in gone:
                await self.reconcile_volume(("", name_of(volume)))
            return None
        if is_being_deleted(claim):
            return await self._unprotect(claim)
        await self._protect(claim)
        if (claim.get("status") or {}).get("phase") == "Bound":
            return None
        return await self._bind(claim)

    async def _protect(self, claim: Obj) -> None:
        def change(obj: Obj) -> Obj | None:
            if PROTECTION in finalizers_of(obj):
                return None
            obj["metadata"]["finalizers"] = [*finalizers_of(obj), PROTECTION]
            return obj

        await modify(self._client, CLAIMS, namespace_of(claim), name_of(claim), uid_of(claim), change)

    async def _unprotect(self, claim: Obj) -> float | None:
        if is_used(claim, await self._client.list("pods", namespace_of(claim))):
            return _RETRY_WHILE_USED

        def change(obj: Obj) -> Obj | None:
            if PROTECTION not in finalizers_of(obj):
                return None
            obj["metadata"]["finalizers"] = [found for found in finalizers_of(obj) if found != PROTECTION]
            return obj

        await modify(self._client, CLAIMS, namespace_of(claim), name_of(claim), uid_of(claim), change)
        return None

    async def _bind(self, claim: Obj) -> float | None:
        storage_class = await self._find_class(claim)
        if storage_class is None:
            return _RETRY_WITHOUT_CLASS
        volume = await self._find_or_provision(claim, storage_class)
        spec = {"volumeName": name_of(volume), "storageClassName": name_of(storage_class)}
        text = {"annotations": {"pv.kubernetes.io/bind-completed": "yes"}}
        await self._client.merge_patch(CLAIMS, name_of(claim), namespace_of(claim), {"metadata": text, "spec": spec})
        status = {
            "phase": "Bound",
            "accessModes": volume["spec"]["accessModes"],
            "capacity": volume["spec"]["capacity"],
        }
        key = namespace_of(claim), name_of(claim), uid_of(claim)
        await write_status(self._client, CLAIMS, *key, lambda _: status)
        await write_status(
            self._client,
            VOLUMES,
            "",
            name_of(volume),
            uid_of(volume),
            lambda now: {**(now.get("status") or {}), "phase": "Bound"},
        )
        return None

    async def _find_class(self, claim: Obj) -> Obj | None:
        """The claim's class, or the default one; a wrong one is said in an Event."""
        name = claim["spec"].get("storageClassName")
        if name is None:
            classes = await self._client.list(CLASSES)
            found = next((entry for entry in classes if annotations_of(entry).get(DEFAULT_CLASS) == "true"), None)
            problem = "no storage class is set and no default class exists"
        else:
            found = await get_or_none(self._client, CLASSES, name)
            problem = f'storageclass.storage.k8s.io "{name}" not found'
        if found is not None:
            if found.get("provisioner") == PROVISIONER:
                return found
            problem = f"no provisioner {found.get('provisioner')!r} runs here: use class {CLASS_NAME!r}"
        await self._recorder.record(Announcement(claim, "ProvisioningFailed", problem, "Warning"))
        await self._set_pending(claim)
        return None

    async def _set_pending(self, claim: Obj) -> None:
        key = namespace_of(claim), name_of(claim), uid_of(claim)
        await write_status(self._client, CLAIMS, *key, lambda now: {**(now.get("status") or {}), "phase": "Pending"})

    async def _find_or_provision(self, claim: Obj, storage_class: Obj) -> Obj:
        name = f"pvc-{uid_of(claim)}"
        volume = await get_or_none(self._client, VOLUMES, name)
        if volume is not None:
            return volume
        folder = self._folder / namespace_of(claim) / f"{name_of(claim)}-{uid_of(claim)[:8]}"
        folder.mkdir(parents=True, exist_ok=True)
        volume = await self._client.create(VOLUMES, build_volume(claim, storage_class, folder))
        text = f"Successfully provisioned volume {name} as a folder of node {NODE_NAME}"
        await self._recorder.record(Announcement(claim, "ProvisioningSucceeded", text))
        return volume

    async def reconcile_volume(self, key: Key) -> float | None:
        """Remove a volume whose claim is gone, with its folder when its policy says so."""
        volume = await get_or_none(self._client, VOLUMES, key[1])
        reference = (volume or {}).get("spec", {}).get("claimRef")
        if (
            volume is None
            or not reference
            or annotations_of(volume).get("pv.kubernetes.io/provisioned-by") != PROVISIONER
        ):
            return None
        claim = await get_or_none(self._client, CLAIMS, reference["name"], reference["namespace"])
        if claim is not None and uid_of(claim) == reference["uid"]:
            return None
        if volume["spec"].get("persistentVolumeReclaimPolicy") == "Retain":
            released = {"phase": "Released"}
            await write_status(self._client, VOLUMES, "", name_of(volume), uid_of(volume), lambda _: released)
            return None
        folder = Path(volume["spec"]["hostPath"]["path"])
        if folder.is_relative_to(self._folder):  # never anything that this cluster did not make
            await asyncio.to_thread(shutil.rmtree, folder, True)
        await delete_if_same(self._client, VOLUMES, "", name_of(volume), uid_of(volume))
        return None

    async def ensure_class(self) -> None:
        """Create the default class when there is none of that name. Raises: ApiError."""
        try:
            await self._client.create(CLASSES, build_storage_class())
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise


def _is_claimed_by(volume: Obj, key: Key) -> bool:
    reference = volume["spec"].get("claimRef") or {}
    return (reference.get("namespace"), reference.get("name")) == key


def _claims_of_pod(pod: Obj) -> list[Key]:
    return [
        (namespace_of(pod), volume["persistentVolumeClaim"]["claimName"])
        for volume in pod["spec"].get("volumes") or []
        if "persistentVolumeClaim" in volume
    ]
