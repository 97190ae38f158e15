"""Claims of a pod: each is one volume of it, however many parts of the pod ask for it."""

from typing import Any

import pytest
from codetune_api.common import Resources
from codetune_api.project import Project
from codetune_operator.resources.models import ModelSource, locate_model
from codetune_operator.resources.pods import container, pod_template
from codetune_operator.resources.project.scan import build_scan
from codetune_operator.settings import Settings

Obj = dict[str, Any]
SETTINGS = Settings()
STORE = {"claimName": "codetune-artifacts"}


def volume(name: str, claim: str, *, read_only: bool = True) -> Obj:
    return {"name": name, "persistentVolumeClaim": {"claimName": claim, **({"readOnly": True} if read_only else {})}}


def mount(name: str, *, read_only: bool = True) -> Obj:
    return {"name": name, "mountPath": f"/{name}", **({"readOnly": True} if read_only else {})}


def build(*volumes: Obj) -> tuple[dict[str, Obj], dict[str, str]]:
    """The claims of a pod by their volume's name, and the volumes that its containers mount, by path."""
    mounts = [mount(entry["name"]) for entry in volumes]
    made = [
        container(name=name, image="i", command=["x"], settings=SETTINGS, resources=Resources(), mounts=mounts)
        for name in ("main", "fetch")
    ]
    spec = pod_template(labels={}, containers=made[:1], init_containers=made[1:], volumes=volumes, settings=SETTINGS)[
        "spec"
    ]
    (main,), (fetch,) = spec["containers"], spec["initContainers"]
    assert main["volumeMounts"] == fetch["volumeMounts"]
    assert all(entry.get("readOnly") for entry in main["volumeMounts"] if entry["mountPath"].count("/") == 1)
    claims = {each["name"]: each["persistentVolumeClaim"] for each in spec["volumes"] if "emptyDir" not in each}
    return claims, {entry["mountPath"]: entry["name"] for entry in main["volumeMounts"]}


FOLDS: list[Any] = [
    pytest.param(
        {"store": STORE, "a": {"claimName": "other", "readOnly": True}},
        {"/a": "a"},
        [volume("a", "other")],
        id="another claim stays as it is",
    ),
    pytest.param({"store": STORE}, {"/a": "store"}, [volume("a", "codetune-artifacts")], id="the store's own claim"),
    pytest.param(
        {"store": STORE, "a": {"claimName": "c", "readOnly": True}},
        {"/a": "a", "/b": "a"},
        [volume("a", "c"), volume("b", "c")],
        id="read-only where both are",
    ),
    pytest.param(
        {"store": STORE, "a": {"claimName": "c"}},
        {"/a": "a", "/b": "a"},
        [volume("a", "c"), volume("b", "c", read_only=False)],
        id="writable where the last is",
    ),
    pytest.param(
        {"store": STORE, "a": {"claimName": "c"}},
        {"/a": "a", "/b": "a"},
        [volume("a", "c", read_only=False), volume("b", "c")],
        id="writable where the first is",
    ),
]


@pytest.mark.parametrize(("claims", "mounted", "volumes"), FOLDS)
def test_a_claim_is_one_volume_that_is_read_only_where_all_want_it_so(
    claims: dict[str, Obj], mounted: dict[str, str], volumes: list[Obj]
) -> None:
    found, paths = build(*volumes)
    assert found == claims
    assert {path: paths[path] for path in mounted} == mounted


def test_a_base_model_in_the_store_is_read_through_the_stores_own_volume() -> None:
    model = locate_model("pvc://codetune-artifacts/models/base", SETTINGS)
    assert isinstance(model, ModelSource)
    found, paths = build(*model.volumes)
    assert found == {"store": STORE}
    assert (model.path, paths["/codetune/store"]) == ("/codetune/models/codetune-artifacts/models/base", "store")


def test_sources_of_one_claim_are_mounted_each_at_its_own_place() -> None:
    sources = [{"name": name, "volume": {"claimName": "shared", "path": name}} for name in ("a", "b")]
    sources.append({"name": "c", "volume": {"claimName": "codetune-artifacts", "path": "c"}})
    metadata = {"name": "mine", "namespace": "ns", "uid": "u1"}
    wire = {"apiVersion": "codetune.dev/v1alpha1", "kind": "Project", "metadata": metadata}
    _, job = build_scan(Project.from_wire({**wire, "spec": {"sources": sources}}), SETTINGS)
    pod = job["spec"]["template"]["spec"]

    claims = [each for each in pod["volumes"] if "persistentVolumeClaim" in each]
    assert claims == [{"name": "store", "persistentVolumeClaim": STORE}, volume("source-0", "shared")]
    (scan,) = pod["containers"]
    assert scan["volumeMounts"][-3:] == [
        {"name": "source-0", "mountPath": "/codetune/volumes/a", "readOnly": True},
        {"name": "source-0", "mountPath": "/codetune/volumes/b", "readOnly": True},
        {"name": "store", "mountPath": "/codetune/volumes/c", "readOnly": True},
    ]
    assert not any(entry.get("readOnly") for entry in scan["volumeMounts"] if entry["mountPath"] == "/codetune/store")
