"""A FineTune that is deleted while it is served: its artifacts stay until the ModelDeployment lets go."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from codetune_api.finetune import FineTune, FineTuneStatus
from codetune_operator.handlers.keys import Key
from codetune_operator.handlers.storing import Store
from codetune_operator.handlers.waking import concerned
from codetune_operator.reconcile.finetune import reconcile
from codetune_operator.reconcile.modeldeployment.holding import find_holders
from codetune_operator.reconcile.observed import FineTuneView
from codetune_operator.settings import Settings

Obj = dict[str, Any]
NOW = datetime(2026, 11, 23, 10, 0, tzinfo=UTC)
SETTINGS = Settings()
CLAIM: Obj = {"metadata": {"name": "codetune-artifacts"}}
DELETED = {"deletionTimestamp": "2026-11-23T09:00:00Z"}


def make_finetune(status: Obj | None = None, **spec: Any) -> FineTune:
    metadata = {
        "name": "backend", "namespace": "ns", "uid": "u1", "generation": 1,
        "finalizers": ["codetune.dev/artifacts"], **DELETED,
    }  # fmt: skip
    spec = {"projectRef": {"name": "p"}, "baseModel": "pvc://models/base", **spec}
    return FineTune.from_wire(
        {
            "apiVersion": "codetune.dev/v1alpha1",
            "kind": "FineTune",
            "metadata": metadata,
            "spec": spec,
            "status": status or {},
        }
    )


def make_mdep(name: str, refs: list[str], served: list[str] = [], **metadata: Any) -> Obj:  # noqa: B006 — only read
    return {
        "apiVersion": "codetune.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": name, "namespace": "ns", "uid": name, "resourceVersion": "1", **metadata},
        "spec": {"adapters": [{"name": ref, "fineTuneRef": {"name": ref}} for ref in refs]},
        "status": {"adapters": [{"name": each, "fineTune": each, "phase": "Ready"} for each in served]},
    }


HOLDERS = [
    pytest.param((), [], id="nobody"),
    pytest.param(("one",), [make_mdep("one", ["backend"]), make_mdep("two", ["other"])], id="one that names it"),
    pytest.param(("one",), [make_mdep("one", [], ["backend"])], id="one whose pods still have it"),
    pytest.param(("one", "two"), [make_mdep("one", ["backend"]), make_mdep("two", [], ["backend"])], id="two"),
    pytest.param((), [make_mdep("one", ["backend"], ["backend"], **DELETED)], id="one that is going itself"),
    pytest.param((), [{"metadata": {"name": "new"}}], id="one without a spec"),
    pytest.param((), [make_mdep("one", []) | {"spec": {"adapters": [{"name": "u", "uri": "x"}]}}], id="one by uri"),
]


@pytest.mark.parametrize(("expected", "deployments"), HOLDERS)
def test_who_serves_it_holds_it(expected: tuple[str, ...], deployments: list[Obj]) -> None:
    assert find_holders("backend", deployments) == expected


def test_what_is_served_is_not_purged_and_says_who_holds_it() -> None:
    view = FineTuneView(finetune=make_finetune(), claim=CLAIM, held_by=("coder", "other"))
    plan = reconcile(view, SETTINGS, NOW)
    assert (plan.apply, plan.delete, plan.finalizer) == ((), (), "Keep")
    assert isinstance(plan.status, FineTuneStatus)
    ready = next(entry for entry in plan.status.conditions if entry.type == "Ready")
    assert (ready.status, ready.reason) == ("False", "InUse")
    assert "ModelDeployment 'coder', ModelDeployment 'other'" in ready.message
    assert [(event.reason, event.message) for event in plan.events] == [("InUse", ready.message)]

    again = replace(view, finetune=view.finetune.model_copy(update={"status": plan.status}))
    assert reconcile(again, SETTINGS, NOW).events == ()
    other = reconcile(replace(again, held_by=("other",)), SETTINGS, NOW)
    assert len(other.events) == 1


def test_it_is_purged_once_nobody_holds_it() -> None:
    plan = reconcile(FineTuneView(finetune=make_finetune(), claim=CLAIM), SETTINGS, NOW)
    assert [obj["kind"] for obj in plan.apply] == ["ConfigMap", "Job"]


RETAINED = make_finetune(deletionPolicy="Retain")


@pytest.mark.parametrize(
    ("finalizer", "view"),
    [
        pytest.param("Keep", FineTuneView(RETAINED, claim=CLAIM, held_by=("x",)), id="retained"),
        pytest.param("Remove", FineTuneView(RETAINED, claim=CLAIM), id="retained, let go"),
        pytest.param(
            "Remove",
            FineTuneView(make_finetune(), claim=CLAIM, held_by=("x",), namespace_terminating=True),
            id="the namespace goes",
        ),
        pytest.param("Remove", FineTuneView(make_finetune(), held_by=("x",)), id="the store is gone"),
    ],
)
def test_holding_never_hangs_a_namespace(finalizer: str, view: FineTuneView) -> None:
    assert reconcile(view, SETTINGS, NOW).finalizer == finalizer


def test_a_run_that_is_deleted_stops_though_it_is_served() -> None:
    job = {"metadata": {"name": "backend-train-1", "uid": "j1"}, "spec": {}, "status": {"active": 1}}
    view = FineTuneView(finetune=make_finetune(), claim=CLAIM, held_by=("coder",), jobs=(job,))
    assert [child.name for child in reconcile(view, SETTINGS, NOW).delete] == ["backend-train-1"]


def key(kind: str, name: str) -> Key:
    return Key(kind, "ns", name)


def finetune(name: str, **metadata: Any) -> Obj:
    return {
        "apiVersion": "codetune.dev/v1alpha1",
        "kind": "FineTune",
        "metadata": {"name": name, "namespace": "ns", "uid": name, "resourceVersion": "1", **metadata},
    }


def test_whoever_lets_go_wakes_what_waits_for_it() -> None:
    store = Store()
    deployment = make_mdep("coder", ["other"])
    for obj in (finetune("going", **DELETED), finetune("staying"), deployment):
        store.put(obj)
    assert concerned(deployment, store) == {key("ModelDeployment", "coder"), key("FineTune", "going")}


def test_a_finetune_wakes_who_serves_it_or_may_find_it_by_its_labels() -> None:
    store = Store()
    selecting = make_mdep("selecting", []) | {"spec": {"adapterSelector": {"matchLabels": {"a": "b"}}}}
    for obj in (make_mdep("named", ["backend"]), make_mdep("serving", [], ["backend"]), make_mdep("not", ["x"])):
        store.put(obj)
    store.put(selecting)
    woken = {found.name for found in concerned(finetune("backend"), store) if found.kind == "ModelDeployment"}
    assert woken == {"named", "serving", "selecting"}
