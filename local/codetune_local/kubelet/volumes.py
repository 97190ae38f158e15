"""Volumes as host folders: ConfigMaps, Secrets, scratch space, claims, the downward API.

Files that may change later lie in a dated folder behind the link `..data`, which is swapped in one step: readers see
the old set or the new one, never a mixture.
"""

import os
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from codetune_local.kubelet.environment import format_map, read_field, read_resource
from codetune_local.kubelet.errors import ConfigError, VolumeError
from codetune_local.machinery.objects import Obj, annotations_of, labels_of

_DATA = "..data"
_DEFAULT_MODE = 0o644


@dataclass(frozen=True)
class VolumeSources:
    """What volumes refer to: everything of the pod's namespace that it names."""

    configmaps: Mapping[str, Mapping[str, bytes]]
    secrets: Mapping[str, Mapping[str, bytes]]
    claims: Mapping[str, Path]
    """Claim name → its host folder; only bound ones."""
    allocatable: Mapping[str, str]


@dataclass(frozen=True)
class _File:
    content: bytes
    mode: int


def make_volumes(pod: Obj, folder: Path, sources: VolumeSources) -> dict[str, Path]:
    """Make or refresh all volumes of a pod below `folder`; returns volume name → host folder. Raises: VolumeError."""
    return {
        volume["name"]: _make_volume(pod, volume, folder / volume["name"], sources)
        for volume in pod["spec"].get("volumes") or []
    }


def _make_volume(pod: Obj, volume: Obj, folder: Path, sources: VolumeSources) -> Path:
    if "persistentVolumeClaim" in volume:
        claim = volume["persistentVolumeClaim"]["claimName"]
        if claim not in sources.claims:
            raise VolumeError(f'volume "{volume["name"]}": persistentvolumeclaim "{claim}" is not bound')
        return sources.claims[claim]
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if "emptyDir" in volume:
        return folder
    if "hostPath" in volume:
        return Path(volume["hostPath"]["path"])
    try:
        write_files(folder, _files(pod, volume, sources))
    except ConfigError as error:
        raise VolumeError(f'MountVolume.SetUp failed for volume "{volume["name"]}" : {error}') from error
    return folder


def _files(pod: Obj, volume: Obj, sources: VolumeSources) -> dict[str, _File]:
    for key in ("configMap", "secret", "downwardAPI"):
        if key in volume:
            return _source_files(pod, key, volume[key], sources, volume[key].get("defaultMode", _DEFAULT_MODE))
    if "projected" in volume:
        files: dict[str, _File] = {}
        mode = volume["projected"].get("defaultMode", _DEFAULT_MODE)
        for source in volume["projected"].get("sources") or []:
            for key, content in source.items():
                files |= _source_files(pod, key, content, sources, mode)
        return files
    kinds = sorted(set(volume) - {"name"})
    raise ConfigError(
        f"{', '.join(kinds)} volumes are not offered by the local cluster: use configMap, secret, emptyDir, "
        "persistentVolumeClaim, projected or downwardAPI"
    )


def _source_files(pod: Obj, kind: str, source: Obj, sources: VolumeSources, mode: int) -> dict[str, _File]:
    if kind == "downwardAPI":
        return {item["path"]: _File(_downward(pod, item, sources), item.get("mode", mode)) for item in source["items"]}
    if kind not in ("configMap", "secret"):
        raise ConfigError(f"a projected {kind} is not offered by the local cluster")
    name = source.get("name") or source.get("secretName", "")
    data = (sources.configmaps if kind == "configMap" else sources.secrets).get(name)
    if data is None:
        if source.get("optional"):
            return {}
        raise ConfigError(f'{kind.lower()} "{name}" not found')
    items = source.get("items") or [{"key": key, "path": key} for key in data]
    files = {}
    for item in items:
        if item["key"] in data:
            files[item["path"]] = _File(data[item["key"]], item.get("mode", mode))
        elif not source.get("optional"):
            raise ConfigError(f"{kind.lower()} references non-existent config key: {item['key']}")
    return files


def _downward(pod: Obj, item: Obj, sources: VolumeSources) -> bytes:
    if "resourceFieldRef" in item:
        return read_resource(pod, {}, item["resourceFieldRef"], sources.allocatable).encode()
    path = item["fieldRef"]["fieldPath"]
    if path in ("metadata.labels", "metadata.annotations"):
        return format_map(labels_of(pod) if path == "metadata.labels" else annotations_of(pod)).encode()
    return read_field(pod, path).encode()


def write_files(folder: Path, files: Mapping[str, _File]) -> bool:
    """Make the folder hold exactly these files, in one step; returns whether anything changed."""
    for path in files:
        if path.startswith("/") or ".." in Path(path).parts:
            raise ConfigError(f"the path {path!r} leaves its volume: give a relative path without `..`")
    if _current(folder) == {path: (file.content, file.mode) for path, file in files.items()}:
        return False
    fresh = folder / f"..{secrets.token_hex(6)}"
    for path, file in files.items():
        target = fresh / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.content)
        target.chmod(file.mode)
    fresh.mkdir(exist_ok=True)
    _swap_link(folder / _DATA, fresh.name)
    _link_top_level(folder, files)
    for entry in folder.iterdir():
        if entry.name.startswith("..") and entry.name not in (_DATA, fresh.name):
            shutil.rmtree(entry)
    return True


def _current(folder: Path) -> dict[str, tuple[bytes, int]] | None:
    data = folder / _DATA
    if not data.exists():
        return None
    return {
        str(path.relative_to(data)): (path.read_bytes(), path.stat().st_mode & 0o777)
        for path in data.rglob("*")
        if path.is_file()
    }


def _swap_link(link: Path, target: str) -> None:
    beside = link.with_name(link.name + "_tmp")
    beside.unlink(missing_ok=True)
    beside.symlink_to(target)
    os.replace(beside, link)


def _link_top_level(folder: Path, files: Mapping[str, _File]) -> None:
    wanted = {Path(path).parts[0] for path in files}
    for name in wanted:
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(Path(_DATA) / name)
    for entry in folder.iterdir():
        if entry.is_symlink() and entry.name != _DATA and entry.name not in wanted:
            entry.unlink()
