"""One volume for each claim of a pod, however many of its parts ask for it. Pure.

A kubelet up to 1.34 never starts a pod with two volumes of one claim, and a later one mounts the claim once, read-only
where the last of them is: the store would be too.
"""

from typing import Any

Obj = dict[str, Any]


def fold_claims(spec: Obj) -> Obj:
    """A pod's spec in which the first volume of a claim stands for all of that claim; their mounts are its mounts.

    It is read-only only where all of them are. Mounts stay as they are but for the volume's name, so what was
    read-only for a container still is.
    """
    kept: dict[str, Obj] = {}
    names: dict[str, str] = {}
    for volume in spec["volumes"]:
        claim = volume.get("persistentVolumeClaim")
        # No claim has a slash in its name.
        key = claim["claimName"] if claim is not None else f"volume/{volume['name']}"
        first = kept.setdefault(key, volume)
        names[volume["name"]] = first["name"]
        if claim is not None and not claim.get("readOnly"):
            kept[key] = {**first, "persistentVolumeClaim": {"claimName": key}}
    containers: Obj = {
        field: [_rename_mounts(container, names) for container in spec[field]]
        for field in ("containers", "initContainers")
        if field in spec
    }
    return {**spec, **containers, "volumes": [*kept.values()]}


def _rename_mounts(container: Obj, names: dict[str, str]) -> Obj:
    mounts = [{**mount, "name": names[mount["name"]]} for mount in container["volumeMounts"]]
    return {**container, "volumeMounts": mounts}
