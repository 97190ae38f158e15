"""Volumes as folders of the host."""

from pathlib import Path
from typing import Any

import pytest
from codetune_local.kubelet.errors import VolumeError
from codetune_local.kubelet.volumes import VolumeSources, make_volumes

Obj = dict[str, Any]


def sources(color: str = "red") -> VolumeSources:
    return VolumeSources(
        configmaps={"settings": {"color": color.encode(), "nested": b"n"}},
        secrets={"keys": {"token": b"\x00s"}},
        claims={"data": Path("/claims/data")},
        allocatable={"cpu": "4"},
    )


def make(tmp_path: Path, volume: Obj, color: str = "red") -> Path:
    metadata = {"name": "p", "namespace": "n", "labels": {"b": '2"', "a": "1"}}
    pod = {"metadata": metadata, "spec": {"volumes": [{"name": "v", **volume}], "containers": []}}
    return make_volumes(pod, tmp_path, sources(color))["v"]


def content(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes() for path in folder.iterdir() if not path.name.startswith("..")
    }


def test_a_configmap_is_one_file_a_key(tmp_path: Path) -> None:
    assert content(make(tmp_path, {"configMap": {"name": "settings"}})) == {"color": b"red", "nested": b"n"}


def test_items_choose_keys_paths_and_modes(tmp_path: Path) -> None:
    items = [{"key": "token", "path": "deep/file", "mode": 0o400}]
    folder = make(tmp_path, {"secret": {"secretName": "keys", "items": items}})
    assert (folder / "deep" / "file").read_bytes() == b"\x00s"
    assert (folder / "deep" / "file").stat().st_mode & 0o777 == 0o400


def test_a_change_swaps_all_files_in_one_step_and_leaves_nothing_behind(tmp_path: Path) -> None:
    folder = make(tmp_path, {"configMap": {"name": "settings"}})
    before = (folder / "..data").resolve()
    make(tmp_path, {"configMap": {"name": "settings"}})
    assert (folder / "..data").resolve() == before, "nothing changed, nothing is swapped"
    make(tmp_path, {"configMap": {"name": "settings"}}, color="blue")
    assert content(folder)["color"] == b"blue"
    assert not before.exists()
    assert sorted(path.name for path in folder.iterdir() if path.name.startswith("..")) == sorted(
        ["..data", (folder / "..data").resolve().name]
    )


def test_a_key_that_was_removed_is_no_file_any_more(tmp_path: Path) -> None:
    folder = make(tmp_path, {"configMap": {"name": "settings"}})
    make(tmp_path, {"configMap": {"name": "settings", "items": [{"key": "color", "path": "color"}]}})
    assert set(content(folder)) == {"color"}


def test_a_projected_volume_holds_several_sources(tmp_path: Path) -> None:
    fields = [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]
    parts = [{"configMap": {"name": "settings"}}, {"secret": {"name": "keys"}}, {"downwardAPI": {"items": fields}}]
    found = content(make(tmp_path, {"projected": {"sources": parts}}))
    assert found == {"color": b"red", "nested": b"n", "token": b"\x00s", "labels": b'a="1"\nb="2\\""'}


def test_a_claim_is_its_own_folder_and_an_empty_dir_is_empty(tmp_path: Path) -> None:
    assert make(tmp_path, {"persistentVolumeClaim": {"claimName": "data"}}) == Path("/claims/data")
    assert list(make(tmp_path, {"emptyDir": {}}).iterdir()) == []


@pytest.mark.parametrize(
    ("message", "volume"),
    [
        pytest.param('configmap "no" not found', {"configMap": {"name": "no"}}, id="configmap"),
        pytest.param('secret "no" not found', {"secret": {"secretName": "no"}}, id="secret"),
        pytest.param("is not bound", {"persistentVolumeClaim": {"claimName": "no"}}, id="claim"),
        pytest.param(
            "non-existent config key: no",
            {"configMap": {"name": "settings", "items": [{"key": "no", "path": "x"}]}},
            id="key",
        ),
        pytest.param("nfs volumes are not offered", {"nfs": {"server": "x"}}, id="kind"),
        pytest.param(
            "leaves its volume",
            {"configMap": {"name": "settings", "items": [{"key": "color", "path": "../x"}]}},
            id="path",
        ),
    ],
)
def test_what_cannot_be_mounted_is_named(tmp_path: Path, message: str, volume: Obj) -> None:
    with pytest.raises(VolumeError, match=message):
        make(tmp_path, volume)


def test_an_optional_source_may_be_missing(tmp_path: Path) -> None:
    assert content(make(tmp_path, {"configMap": {"name": "no", "optional": True}})) == {}
