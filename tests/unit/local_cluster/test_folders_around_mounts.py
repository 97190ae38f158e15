"""A folder in which only mounts lie is there in a container; a process of the local cluster finds it too."""

from pathlib import Path
from typing import Any

import pytest
from codetune_local.kubelet.launching import Placement, make_mount_points, mounted_folders
from codetune_local.kubelet.podfolders import PodFolder

Obj = dict[str, Any]


@pytest.fixture
def placement(tmp_path: Path) -> Placement:
    """A pod with two volumes."""
    folder = PodFolder(tmp_path / "pod")
    folder.make(["scan"])
    volumes = {name: tmp_path / name for name in ("one", "two")}
    for name, path in volumes.items():
        path.mkdir()
        (path / "key").write_text(name)
    return Placement(folder, volumes, "127.0.0.2", (), (0,))


def container(**mounts: str) -> Obj:
    return {
        "name": "scan",
        "volumeMounts": [{"name": name, "mountPath": path} for name, path in mounts.items()],
    }


def test_a_variable_that_names_the_folder_around_mounts_leads_to_all_of_them(placement: Placement) -> None:
    spec = container(one="/credentials/app", two="/credentials/deep/lib")
    folders = mounted_folders(spec, {"ROOT": "/credentials", "OTHER": "/cred", "TEXT": "x"}, 0, placement)
    for _ in range(2):  # a container that is started again finds it as it was
        make_mount_points(spec, folders)
    root = Path(folders["/credentials"])
    assert (root / "app" / "key").read_text() == "one"
    assert (root / "deep" / "lib" / "key").read_text() == "two"
    assert sorted(path.name for path in root.iterdir()) == ["app", "deep"]
    assert "/cred" not in folders


def test_a_folder_that_is_mounted_itself_stays_what_it_is(placement: Placement) -> None:
    spec = container(one="/data", two="/data/inner")
    folders = mounted_folders(spec, {"ROOT": "/data"}, 0, placement)
    make_mount_points(spec, folders)
    assert folders["/data"] == str(placement.volumes["one"])
    assert [path.name for path in placement.volumes["one"].iterdir()] == ["key"]


def test_the_root_is_never_a_folder_around_mounts(placement: Placement) -> None:
    assert "/" not in mounted_folders(container(one="/data"), {"ROOT": "/", "NONE": ""}, 0, placement)
