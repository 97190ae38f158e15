"""The store of the local API server: what survives a kill, and how far back a watch can begin."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from codetune_local.apiserver import storage as storing
from codetune_local.apiserver.errors import ApiError
from codetune_local.apiserver.registry import Registry
from codetune_local.apiserver.storage import Storage

Obj = dict[str, Any]

WRITER = """
import sys
from pathlib import Path
from codetune_local.apiserver.registry import Registry

registry = Registry.open(Path(sys.argv[1]))
registry.create(registry.by_key("namespaces"), "", {"metadata": {"name": "n"}})
configs = registry.by_key("configmaps")
for number in range(100_000):
    registry.create(configs, "n", {"metadata": {"name": f"c{number}"}, "data": {"number": str(number)}})
    print(number, flush=True)
"""


def make(name: str, **metadata: Any) -> Obj:
    return {"metadata": {"name": name, "namespace": "n", **metadata}}


def test_every_acknowledged_write_survives_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        acknowledged = [int(writer.stdout.readline()) for _ in range(200)]
        os.kill(writer.pid, signal.SIGKILL)
        acknowledged += [int(line) for line in writer.stdout if line.endswith("\n")]
    registry = Registry.open(path)
    found = {obj["data"]["number"] for obj in registry.storage.all("configmaps", "n")}
    assert {str(number) for number in acknowledged} <= found
    registry.storage.close()


def test_versions_go_on_after_a_restart(tmp_path: Path) -> None:
    first = Storage(tmp_path / "state.db")
    first.put("configmaps", make("a"))
    first.remove("configmaps", "n", "a")
    first.close()
    second = Storage(tmp_path / "state.db")
    assert second.version == first.version
    assert int(second.put("configmaps", make("b"))["metadata"]["resourceVersion"]) == first.version + 1
    second.close()


def test_custom_kinds_are_served_again_after_a_restart(tmp_path: Path) -> None:
    registry = Registry.open(tmp_path / "state.db")
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object"}}}
    spec = {"group": "x.example.com", "scope": "Cluster", "names": {"plural": "xs", "kind": "X"}, "versions": [version]}
    registry.create(
        registry.by_key(storing_key := "customresourcedefinitions.apiextensions.k8s.io"),
        "",
        {"metadata": {"name": "xs.x.example.com"}, "spec": spec},
    )
    registry.create(registry.by_key("xs.x.example.com"), "", {"metadata": {"name": "one"}})
    registry.storage.close()
    again = Registry.open(tmp_path / "state.db")
    assert again.get(again.by_key("xs.x.example.com"), "", "one")["kind"] == "X"
    assert again.storage.all(storing_key)
    again.storage.close()


def test_a_watch_that_begins_too_early_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storing, "HISTORY", 3)
    storage = Storage(None)
    versions = [int(storage.put("configmaps", make(name))["metadata"]["resourceVersion"]) for name in "abcdef"]
    assert [change.object["metadata"]["name"] for change in storage.since(versions[3])] == ["e", "f"]
    with pytest.raises(ApiError) as refused:
        storage.since(versions[0])
    assert (refused.value.code, refused.value.reason) == (410, "Expired")
    storage.close()


def test_a_version_of_another_cluster_is_told_so() -> None:
    storage = Storage(None)
    with pytest.raises(ApiError, match="too old resource version"):
        storage.since(storage.version + 100)
    storage.close()
