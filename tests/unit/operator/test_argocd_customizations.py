"""What Argo CD makes of our kinds by the scripts in examples/gitops, run by a real Lua.

The statuses are those that the reconcilers write in every situation that their own tables know. kstatus is the oracle
of the health: it and Argo CD must never tell a user different stories.
"""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from codetune_api.common import Resource
from codetune_api.crd import KINDS
from codetune_api.metadata import ANNOTATION_RESCAN
from codetune_operator.reconcile import finetune, modeldeployment, team
from codetune_operator.reconcile.plan import Plan
from codetune_operator.settings import Settings
from kustomizing import GITOPS, render_kustomization
from lupa import lua51
from unit.operator.finetune import test_finetune_life
from unit.operator.kstatus import kstatus
from unit.operator.modeldeployment import test_modeldeployment_life
from unit.operator.project.test_project_kstatus import STATES
from unit.operator.team import test_team_life

if TYPE_CHECKING:
    from unit.operator.conftest import Story

Obj = dict[str, Any]
NOW = datetime(2026, 11, 23, 10, 0, tzinfo=UTC)
CLOSED = ("string", "math", "io", "os", "debug", "coroutine", "dofile", "loadfile")
"""Libraries of Lua that Argo CD opens for no script unless it is told to."""


@cache
def read_customizations() -> dict[str, str]:
    """The keys of argocd-cm, by what follows `resource.customizations.`."""
    (config,) = render_kustomization(GITOPS / "argocd" / "customizations")
    data: dict[str, str] = config["data"]
    return {key.removeprefix("resource.customizations."): text for key, text in data.items()}


def run(script: str, obj: Obj) -> Any:
    """What a script returns for an object, in the Lua that Argo CD has: 5.1 without most of its libraries."""
    lua = lua51.LuaRuntime(unpack_returned_tuples=True)
    lua.execute('local clock = os.date; package.loaded.os = {date = clock}; getmetatable("").__index = nil')
    for name in CLOSED:
        lua.globals()[name] = None
    lua.globals().obj = lua.table_from(obj, recursive=True)
    return _from_lua(lua.execute(script), lua51.lua_type)


def _from_lua(value: Any, type_of: Callable[[Any], str | None]) -> Any:
    if type_of(value) != "table":
        return value
    pairs = {key: _from_lua(inner, type_of) for key, inner in value.items()}
    return list(pairs.values()) if pairs and all(isinstance(key, int) for key in pairs) else pairs


def judge(kind: str, obj: Obj) -> tuple[str, str]:
    """Health and message."""
    said = run(read_customizations()[f"health.codetune.dev_{kind}"], obj)
    return said["status"], said["message"]


RECONCILERS: dict[str, Callable[[Any], tuple[Resource, Plan]]] = {
    "FineTune": lambda view: (view.finetune, finetune.reconcile(view, Settings(), NOW)),
    "ModelDeployment": lambda view: (view.modeldeployment, modeldeployment.reconcile(view, Settings(), NOW)),
    "Team": lambda view: (view.team, team.reconcile(view, Settings(), NOW)),
}
LIVES = {
    "FineTune": test_finetune_life.LIFE,
    "ModelDeployment": test_modeldeployment_life.LIFE,
    "Team": test_team_life.LIFE,
}


def tell(kind: str, view: Any) -> Obj:
    """The object with the status that it has after a look."""
    resource, plan = RECONCILERS[kind](view)
    assert plan.status is not None
    return {**resource.to_wire(), "status": plan.status.to_wire()}


def ready_of(obj: Obj) -> Obj:
    (ready,) = [entry for entry in obj["status"]["conditions"] if entry["type"] == "Ready"]
    return dict(ready)


def translate(obj: Obj) -> str:
    """kstatus's word in Argo CD's: only Suspended has none there."""
    if kstatus(obj) == "InProgress" and ready_of(obj)["reason"] == "Suspended":
        return "Suspended"
    return {"Current": "Healthy", "Failed": "Degraded", "InProgress": "Progressing"}[kstatus(obj)]


@pytest.mark.parametrize(
    ("kind", "view"),
    [pytest.param(kind, row.values[1], id=f"{kind}: {row.id}") for kind, rows in LIVES.items() for row in rows],
)
def test_argo_cd_and_flux_tell_the_same_of_it(kind: str, view: Any) -> None:
    obj = tell(kind, view)
    health, message = judge(kind, obj)
    assert health == translate(obj)
    assert message in {entry["message"] for entry in obj["status"]["conditions"]}


@pytest.mark.parametrize("live", [pytest.param(row.values[1], id=row.id) for row in STATES])
def test_argo_cd_and_flux_tell_the_same_of_a_project(
    live: Callable[["Story", Any], None], story: Callable[..., "Story"], result: Any
) -> None:
    told = story()
    live(told, result)
    obj = {**told.project.to_wire(), "status": told.status.to_wire()}
    assert judge("Project", obj)[0] == translate(obj)


def find(kind: str, name: str) -> Obj:
    (view,) = [row.values[1] for row in LIVES[kind] if row.id == name]
    return tell(kind, view)


FRESH: Obj = {"metadata": {"generation": 1}, "spec": {}}
EDITED: Obj = {"metadata": {"generation": 9}}
GOING: Obj = {"metadata": {"generation": 3, "deletionTimestamp": "2026-11-23T10:00:00Z"}}


@pytest.mark.parametrize(
    ("expected", "kind", "obj"),
    [
        pytest.param(
            "Progressing", "Team", {**FRESH, "status": {"observedGeneration": -1}}, id="nobody has looked yet"
        ),
        pytest.param("Progressing", "Team", FRESH, id="it has no status"),
        pytest.param("Progressing", "FineTune", {**find("FineTune", "done, result read"), **EDITED}, id="edited"),
        pytest.param("Progressing", "FineTune", {**find("FineTune", "done, result read"), **GOING}, id="deleted"),
        pytest.param("Progressing", "FineTune", find("FineTune", "no project"), id="run that waits for its data"),
        pytest.param("Progressing", "FineTune", find("FineTune", "at work"), id="run at work"),
        pytest.param("Suspended", "FineTune", find("FineTune", "suspended at work"), id="run suspended"),
        pytest.param("Healthy", "FineTune", find("FineTune", "done, result read"), id="run done"),
        pytest.param("Degraded", "FineTune", find("FineTune", "failed for good"), id="run failed"),
        pytest.param("Progressing", "ModelDeployment", find("ModelDeployment", "one of two"), id="server scales up"),
        pytest.param("Healthy", "ModelDeployment", find("ModelDeployment", "scaled to zero"), id="server at zero"),
        pytest.param(
            "Healthy", "ModelDeployment", find("ModelDeployment", "held back as asked"), id="adapter held back"
        ),
        pytest.param("Degraded", "Team", find("Team", "it runs and admits nobody"), id="team without keys"),
        pytest.param("Progressing", "Team", find("Team", "no deployment"), id="team that waits for its model"),
    ],
)
def test_argo_cd_shows(expected: str, kind: str, obj: Obj) -> None:
    assert judge(kind, obj)[0] == expected


def test_every_kind_has_a_health_check_and_it_is_the_same() -> None:
    checks = {key: text for key, text in read_customizations().items() if key.startswith("health.")}
    assert checks.keys() == {f"health.codetune.dev_{kind.model.__name__}" for kind in KINDS}
    assert len(set(checks.values())) == 1


def test_argo_cd_s_configuration_is_found_and_nothing_else_of_it_is_touched() -> None:
    (config,) = render_kustomization(GITOPS / "argocd" / "customizations")
    assert (config["kind"], config["metadata"]["name"], config["metadata"]["namespace"]) == (
        "ConfigMap", "argocd-cm", "argocd",
    )  # fmt: skip
    assert config["metadata"]["labels"]["app.kubernetes.io/part-of"] == "argocd"
    assert all(key.startswith("resource.customizations.") and "codetune.dev_" in key for key in config["data"])


def read_actions(kind: str) -> tuple[str, dict[str, str]]:
    """The script that offers actions, and each action's."""
    told = yaml.safe_load(read_customizations()[f"actions.codetune.dev_{kind}"])
    return told["discovery.lua"], {entry["name"]: entry["action.lua"] for entry in told["definitions"]}


@pytest.mark.parametrize(
    ("offered", "kind", "spec"),
    [
        pytest.param({"suspend", "rescan"}, "Project", {}, id="project"),
        pytest.param({"resume"}, "Project", {"suspend": True}, id="suspended project"),
        pytest.param({"suspend"}, "FineTune", {"suspend": False}, id="run"),
        pytest.param({"resume"}, "FineTune", {"suspend": True}, id="suspended run"),
    ],
)
def test_argo_cd_offers_what_makes_sense_now(offered: set[str], kind: str, spec: Obj) -> None:
    discovery, actions = read_actions(kind)
    found = run(discovery, {**FRESH, "spec": spec})
    assert found.keys() == actions.keys()
    assert {name for name, entry in found.items() if not entry["disabled"]} == offered


@pytest.mark.parametrize("kind", ["Project", "FineTune"])
@pytest.mark.parametrize(("action", "suspended"), [("suspend", True), ("resume", False)])
def test_an_action_suspends_and_resumes(action: str, suspended: bool, kind: str) -> None:
    _, actions = read_actions(kind)
    changed = run(actions[action], {**FRESH, "spec": {"suspend": not suspended, "other": 1}})
    assert changed["spec"] == {"suspend": suspended, "other": 1}


@pytest.mark.parametrize("annotations", [{}, {"annotations": {"mine": "kept"}}], ids=["none before", "some before"])
def test_an_action_scans_a_project_again(annotations: Obj) -> None:
    _, actions = read_actions("Project")
    changed = run(actions["rescan"], {**FRESH, "metadata": {"generation": 1, **annotations}})
    found = changed["metadata"]["annotations"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", found.pop(ANNOTATION_RESCAN))
    assert found == annotations.get("annotations", {})
