"""What examples/gitops tells Flux and Argo CD: that it leads to files that are there, and what it takes for done."""

import re
from pathlib import Path
from typing import Any

import celpy
import pytest
import yaml
from celpy import celtypes
from celpy.adapter import json_to_cel
from chart import render_chart
from codetune_api.crd import KINDS, build_schema
from codetune_operator.settings import parse_settings
from kustomizing import GITOPS, OVERLAYS, render_kustomization

Obj = dict[str, Any]
REPOSITORY = GITOPS.parents[1]


def load(*path: str) -> list[Obj]:
    return list(yaml.safe_load_all(GITOPS.joinpath(*path).read_text()))


RELEASE = load("flux", "release", "release.yaml")
KUSTOMIZATIONS = {obj["metadata"]["name"]: obj["spec"] for obj in load("flux", "kustomizations.yaml")}
((OPERATOR,), (MODELS,)) = load("argocd", "codetune.yaml"), load("argocd", "models.yaml")


def test_every_file_is_read_by_a_test() -> None:
    names = {str(path.relative_to(GITOPS)) for path in GITOPS.rglob("*") if path.is_file()}
    kustomized = {name for name in names if name.startswith(("kustomize/", "argocd/customizations/"))}
    assert names - kustomized == {
        "argocd/codetune.yaml", "argocd/models.yaml", "flux/kustomizations.yaml", "flux/release/release.yaml",
    }  # fmt: skip


@pytest.mark.parametrize(
    "path", [spec["path"] for spec in KUSTOMIZATIONS.values()] + [MODELS["spec"]["source"]["path"]]
)
def test_a_path_in_git_is_a_folder_of_the_examples(path: str) -> None:
    assert (GITOPS / path).is_dir()


def test_resources_wait_until_their_definitions_are_there() -> None:
    assert KUSTOMIZATIONS["models"]["dependsOn"] == [{"name": "codetune"}]
    assert KUSTOMIZATIONS["codetune"]["wait"] is True
    assert OPERATOR["metadata"]["annotations"]["argocd.argoproj.io/sync-wave"] == "-1"


def read_values() -> list[Any]:
    (release,) = [obj["spec"] for obj in RELEASE if obj["kind"] == "HelmRelease"]
    return [release["values"], OPERATOR["spec"]["source"]["helm"]["valuesObject"]]


@pytest.mark.parametrize("values", read_values(), ids=["Flux", "Argo CD"])
def test_the_chart_takes_the_values_and_is_the_same_each_time(values: Obj) -> None:
    objects = render_chart(values)
    (settings,) = [obj["data"]["settings.yaml"] for obj in objects if obj["kind"] == "ConfigMap"]
    assert parse_settings(settings).images.trainer == "registry.example.com/codetune-trainer:0.1.0"
    assert render_chart(values) == objects


def test_the_chart_is_where_both_look_for_it() -> None:
    (release,) = [obj["spec"]["chart"]["spec"]["chart"] for obj in RELEASE if obj["kind"] == "HelmRelease"]
    for path in (release, OPERATOR["spec"]["source"]["path"]):
        assert (REPOSITORY / path / "Chart.yaml").exists()


def test_argo_cd_applies_and_ignores_as_the_api_server_sees_it() -> None:
    options = MODELS["spec"]["syncPolicy"]["syncOptions"]
    assert {"ServerSideApply=true", "RespectIgnoreDifferences=true"} <= set(options)
    (ignored,) = MODELS["spec"]["ignoreDifferences"]
    assert (ignored["kind"], ignored["jqPathExpressions"]) == ("ModelDeployment", [".spec.replicas"])


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.name)
def test_a_namespace_with_its_store_is_never_pruned(overlay: Path) -> None:
    (namespace,) = [obj["metadata"] for obj in render_kustomization(overlay) if obj["kind"] == "Namespace"]
    assert namespace["annotations"] == {
        "argocd.argoproj.io/sync-options": "Prune=false,Delete=false",
        "kustomize.toolkit.fluxcd.io/prune": "disabled",
    }


def health(kind: str, obj: Obj) -> str:
    """What Flux's own expressions make of an object, in its order."""
    (checks,) = [entry for entry in KUSTOMIZATIONS["models"]["healthCheckExprs"] if entry["kind"] == kind]
    environment = celpy.Environment()
    given: Any = {key: json_to_cel(value) for key, value in obj.items()}
    for name in ("inProgress", "failed", "current"):
        if environment.program(environment.compile(checks[name])).evaluate(given) == celtypes.BoolType(True):
            return name
    return "inProgress"


def make(conditions: dict[str, str], generation: int = 1) -> Obj:
    """An object whose operator has seen generation 1; conditions as `status/reason`."""
    told = [
        {"type": kind, "status": text.split("/")[0], "reason": text.split("/")[1]} for kind, text in conditions.items()
    ]
    return {"metadata": {"generation": generation}, "status": {"observedGeneration": 1, "conditions": told}}


WORKS = {"Ready": "False/Training", "Reconciling": "True/Training"}
FAILED = {"Ready": "False/OutOfMemory", "Stalled": "True/OutOfMemory"}
PENDING = {"Ready": "False/AdapterPending", "Reconciling": "True/AdapterPending"}
NEW: Obj = {"metadata": {"generation": 1}, "status": {"observedGeneration": -1}}


@pytest.mark.parametrize(
    ("expected", "kind", "obj"),
    [
        pytest.param("inProgress", "FineTune", NEW, id="run that nobody has looked at"),
        pytest.param("inProgress", "FineTune", make(WORKS, generation=2), id="run edited"),
        pytest.param("current", "FineTune", make(WORKS), id="run at work"),
        pytest.param("current", "FineTune", make({"Ready": "False/Suspended"}), id="run suspended"),
        pytest.param("current", "FineTune", make({"Ready": "True/Succeeded"}), id="run done"),
        pytest.param("failed", "FineTune", make(FAILED), id="run failed"),
        pytest.param("inProgress", "ModelDeployment", NEW, id="server that nobody has looked at"),
        pytest.param("inProgress", "ModelDeployment", make({"Ready": "False/Rolling"}), id="server rolls"),
        pytest.param("current", "ModelDeployment", make(PENDING), id="server whose adapter is being trained"),
        pytest.param("current", "ModelDeployment", make({"Ready": "True/Serving"}), id="server ready"),
        pytest.param("failed", "ModelDeployment", make(FAILED), id="server failed"),
    ],
)
def test_flux_takes_for(expected: str, kind: str, obj: Obj) -> None:
    assert health(kind, obj) == expected


def test_the_page_names_every_field_that_can_not_be_changed() -> None:
    page = (REPOSITORY / "docs" / "gitops.md").read_text()
    section = page.split("## What can't be changed")[1].split("##")[0]
    fixed = {
        field
        for kind in KINDS
        for field in re.findall(r"(\w+) can't be changed once set", str(build_schema(kind.model)))
    }
    assert len(fixed) >= 7
    assert all(f"`{field}`" in section for field in fixed)


def test_flux_s_expressions_are_of_our_kinds() -> None:
    kinds = {entry["kind"] for entry in KUSTOMIZATIONS["models"]["healthCheckExprs"]}
    assert kinds == {"FineTune", "ModelDeployment"} < {kind.model.__name__ for kind in KINDS}
