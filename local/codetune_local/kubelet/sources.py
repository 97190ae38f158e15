"""Fetching what a pod refers to: ConfigMaps, Secrets and claims of its namespace."""

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from codetune_local.kubelet.errors import VolumeError
from codetune_local.kubelet.volumes import VolumeSources
from codetune_local.machinery.client import Client
from codetune_local.machinery.objects import Obj, namespace_of
from codetune_local.machinery.reading import get_or_none


@dataclass(frozen=True)
class References:
    """Names that a pod mentions."""

    configmaps: frozenset[str]
    secrets: frozenset[str]
    claims: frozenset[str]


def find_references(pod: Obj) -> References:
    """Everything that a pod's volumes and environments mention. Pure."""
    found: dict[str, set[str]] = {"configmaps": set(), "secrets": set(), "claims": set()}
    spec = pod["spec"]
    for volume in spec.get("volumes") or []:
        _collect_volume(volume, found)
    for container in [*(spec.get("initContainers") or []), *spec["containers"]]:
        entries = [
            *(container.get("envFrom") or []),
            *(entry.get("valueFrom") or {} for entry in container.get("env") or []),
        ]
        for entry in entries:
            for key, kind in (("configMap", "configmaps"), ("secret", "secrets")):
                found[kind].update(entry[name]["name"] for name in (f"{key}Ref", f"{key}KeyRef") if name in entry)
    return References(*(frozenset(found[kind]) for kind in ("configmaps", "secrets", "claims")))


def _collect_volume(volume: Obj, found: dict[str, set[str]]) -> None:
    for source in [volume, *((volume.get("projected") or {}).get("sources") or [])]:
        if "configMap" in source:
            found["configmaps"].add(source["configMap"].get("name", ""))
        if "secret" in source:
            found["secrets"].add(source["secret"].get("secretName") or source["secret"].get("name", ""))
    if "persistentVolumeClaim" in volume:
        found["claims"].add(volume["persistentVolumeClaim"]["claimName"])


async def fetch_sources(client: Client, pod: Obj, allocatable: Mapping[str, str]) -> VolumeSources:
    """Get everything that a pod mentions; what does not exist is left out. Raises: ApiError."""
    references = find_references(pod)
    namespace = namespace_of(pod)
    configmaps = await _fetch_all(client, "configmaps", namespace, references.configmaps)
    secrets = await _fetch_all(client, "secrets", namespace, references.secrets)
    claims = {}
    for name in references.claims:
        folder = await find_claim_folder(client, namespace, name)
        if folder is not None:
            claims[name] = folder
    return VolumeSources(
        configmaps={name: _configmap_data(obj) for name, obj in configmaps.items()},
        secrets={name: _decode(obj.get("data")) for name, obj in secrets.items()},
        claims=claims,
        allocatable=allocatable,
    )


async def _fetch_all(client: Client, resource: str, namespace: str, names: Iterable[str]) -> dict[str, Obj]:
    found = {}
    for name in names:
        obj = await get_or_none(client, resource, name, namespace)
        if obj is not None:
            found[name] = obj
    return found


def _configmap_data(obj: Obj) -> dict[str, bytes]:
    return {key: value.encode() for key, value in (obj.get("data") or {}).items()} | _decode(obj.get("binaryData"))


def _decode(data: Mapping[str, str] | None) -> dict[str, bytes]:
    return {key: base64.b64decode(value) for key, value in (data or {}).items()}


async def find_claim_folder(client: Client, namespace: str, name: str) -> Path | None:
    """The host folder of a bound claim; None while it is not bound. Raises: ApiError, VolumeError."""
    claim = await get_or_none(client, "persistentvolumeclaims", name, namespace)
    if claim is None or (claim.get("status") or {}).get("phase") != "Bound":
        return None
    volume = await get_or_none(client, "persistentvolumes", claim["spec"]["volumeName"])
    if volume is None:
        return None
    place = volume["spec"].get("hostPath") or volume["spec"].get("local")
    if not place:
        raise VolumeError(f"PersistentVolume {claim['spec']['volumeName']} has no folder on this host")
    return Path(place["path"])
