"""A container's spec → the command, environment and folder of a process. Pure but for reading this host's PATH."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from codetune_local.images import Image
from codetune_local.images.catalog import PYTHON_NAMES
from codetune_local.kubelet.environment import expand
from codetune_local.kubelet.hostnames import ENV_HOSTS
from codetune_local.kubelet.podfolders import PodFolder
from codetune_local.kubelet.processes import Launch
from codetune_local.kubelet.rewriting import PathRewriter
from codetune_local.machinery.objects import Obj

# What an image would have inside and a process of this host must take from its surroundings.
_FROM_HOST = (
    *("LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO"),
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"),
)
_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ENV_BIND_HOST = "CODETUNE_BIND_HOST"
"""Where servers listen: pods share the host's network, so each has to keep to its own address."""


@dataclass(frozen=True)
class Placement:
    """What a container got on this host."""

    folder: PodFolder
    volumes: Mapping[str, Path]
    """Volume name → host folder."""
    pod_ip: str
    gpus: tuple[int, ...]
    cores: tuple[int, ...]
    hosts: Path | None = None
    """File with the names of pods; None for a pod without a name."""


def build_launch(
    pod: Obj, container: Obj, image: Image, environment: Mapping[str, str], attempt: int, placement: Placement
) -> Launch:
    """The process that stands for a container.

    Args:
        environment: The container's own variables, already resolved.
        attempt: How many times it was restarted.
    """
    folder = placement.folder
    name = container["name"]
    rewriter = PathRewriter(mounted_folders(container, environment, attempt, placement))
    base = _base_environment(folder, placement) | dict(image.env)
    values = {key: rewriter.rewrite(value) for key, value in environment.items()}
    values = {**base, "HOSTNAME": pod["spec"].get("hostname") or pod["metadata"]["name"], **values}
    argv = [rewriter.rewrite(expand(word, environment)) for word in _command(container, image)]
    if argv[0] in PYTHON_NAMES:
        argv[0] = sys.executable
    cwd = rewriter.rewrite(container.get("workingDir") or "")
    if not cwd or not os.path.isdir(cwd):
        cwd = str(folder.working_folder(name))
    return Launch(argv, values, cwd, str(folder.attempt(name, attempt)), list(placement.cores))


def _command(container: Obj, image: Image) -> list[str]:
    command, args = container.get("command") or [], container.get("args") or []
    if command:
        return [*command, *args]
    return [*image.entrypoint, *(args or image.command)] or ["sh"]


def _base_environment(folder: PodFolder, placement: Placement) -> dict[str, str]:
    values = {name: os.environ[name] for name in _FROM_HOST if name in os.environ}
    tools = str(Path(sys.executable).parent)
    scratch = str(folder.scratch)
    if placement.hosts is not None:
        values[ENV_HOSTS] = str(placement.hosts)
    return values | {
        "PATH": f"{tools}:{os.environ.get('PATH', _DEFAULT_PATH)}",
        "HOME": scratch,
        "TMPDIR": scratch,
        "CUDA_VISIBLE_DEVICES": ",".join(str(index) for index in placement.gpus),
        ENV_BIND_HOST: placement.pod_ip,
    }


def mounted_folders(
    container: Obj, environment: Mapping[str, str], attempt: int, placement: Placement
) -> dict[str, str]:
    """Container path → host path, for every mount, the termination log, and folders in which only mounts lie.

    Such a folder (`/credentials` around a mount at `/credentials/app`) is there in a container by itself; here it is
    made when a variable names it.
    """
    folders = {}
    for mount in container.get("volumeMounts") or []:
        host = placement.volumes[mount["name"]]
        inside = expand(mount.get("subPathExpr") or "", environment) or mount.get("subPath") or ""
        folders[mount["mountPath"]] = str(host / inside) if inside else str(host)
    around = {value for value in environment.values() if any(path.startswith(f"{value}/") for path in folders)}
    shells = placement.folder.shells(container["name"])
    folders = {path: str(shells / path.lstrip("/")) for path in around if path.startswith("/")} | folders
    termination = container.get("terminationMessagePath") or "/dev/termination-log"
    folders[termination] = str(placement.folder.termination_log(container["name"], attempt))
    return folders


def make_mount_points(container: Obj, folders: Mapping[str, str]) -> None:
    """Make what `mounted_folders` names and no volume has: sub-folders of volumes, and folders around mounts.

    A file that is there already stays a file.
    """
    mounts = container.get("volumeMounts") or []
    for mount in mounts:
        path = Path(folders[mount["mountPath"]])
        if ("subPath" in mount or "subPathExpr" in mount) and not path.exists():
            path.mkdir(parents=True)
    paths = {mount["mountPath"] for mount in mounts}
    tops = {path for path in paths if not any(path.startswith(f"{other}/") for other in paths)}
    for around in folders.keys() - paths:
        for path in sorted(top for top in tops if top.startswith(f"{around}/")):
            link = Path(folders[around]) / path.removeprefix(f"{around}/")
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.is_symlink():
                link.symlink_to(folders[path])
