"""The store service of a namespace: who needs it, for how long, and what it is made of."""

import base64
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import kubernetes_validate
import pytest
from codetune_api.finetune import FineTune
from codetune_api.project import Project
from codetune_operator.cluster.kinds import DEPLOYMENT, SERVICE
from codetune_operator.handlers.asking import ServingReports
from codetune_operator.handlers.observing import Observer
from codetune_operator.handlers.storing import Store
from codetune_operator.handlers.tracking import LogTracker
from codetune_operator.reconcile.observed import StoreView
from codetune_operator.reconcile.store import reconcile
from codetune_operator.resources.store import build_store, pod_selector, store_token
from codetune_operator.settings import Settings

if TYPE_CHECKING:
    from unit.operator.conftest import Api

Obj = dict[str, Any]
KEY = b"0123456789abcdef0123456789abcdef"
NOW = datetime(2026, 11, 23, 10, 0, tzinfo=UTC)
UPLOAD = {"name": "code", "upload": {}}
GIT = {"name": "code", "git": {"url": "https://example.org/code.git"}}
GONE = "2026-11-23T09:00:00Z"


def make_project(name: str, *sources: Obj, until: str = "", deleted: str | None = None) -> Project:
    metadata: Obj = {"name": name, "namespace": "ns", "uid": f"uid-{name}", "deletionTimestamp": deleted}
    metadata["annotations"] = {"codetune.dev/store-until": until} if until else {}
    return Project.from_wire(
        {"apiVersion": "codetune.dev/v1alpha1", "kind": "Project", "metadata": metadata, "spec": {"sources": sources}}
    )


def make_finetune(until: str) -> FineTune:
    metadata = {"name": "run", "namespace": "ns", "uid": "uid-run", "annotations": {"codetune.dev/store-until": until}}
    spec = {"projectRef": {"name": "a"}, "baseModel": "pvc://models/m"}
    return FineTune.from_wire(
        {"apiVersion": "codetune.dev/v1alpha1", "kind": "FineTune", "metadata": metadata, "spec": spec}
    )


NEEDS: dict[str, tuple[list[str], float | None, list[Project | FineTune]]] = {
    "nobody": ([], None, []),
    "a project without an upload source": ([], None, [make_project("a", GIT)]),
    "a project with one": (["a"], None, [make_project("a", GIT, {**UPLOAD, "name": "more"}), make_project("b", GIT)]),
    "two projects with one": (["a", "b"], None, [make_project("a", UPLOAD), make_project("b", UPLOAD)]),
    "a project that is being deleted": ([], None, [make_project("a", UPLOAD, deleted=GONE)]),
    "a project that asks for it": (["a"], 600.0, [make_project("a", GIT, until="2026-11-23T10:10:00Z")]),
    "a project that asked for it until now": ([], None, [make_project("a", GIT, until="2026-11-23T10:00:00Z")]),
    "a run that asks for it": (["run"], 60.0, [make_finetune("2026-11-23T10:01:00Z")]),
    "the next to stop asking": (
        ["a", "run"],
        60.0,
        [make_project("a", GIT, until="2026-11-23T10:10:00Z"), make_finetune("2026-11-23T10:01:00Z")],
    ),
    "a wish for years": (["a"], 86400.0, [make_project("a", GIT, until="2999-01-01T00:00:00Z")]),
    "a wish that is no time": ([], None, [make_project("a", GIT, until="tomorrow")]),
}


@pytest.mark.parametrize("row", NEEDS.values(), ids=NEEDS.keys())
def test_it_is_there_while_somebody_needs_it(row: tuple[list[str], float | None, list[Project | FineTune]]) -> None:
    owners, again, resources = row
    view = StoreView(
        "ns",
        KEY,
        projects=tuple(found for found in resources if isinstance(found, Project)),
        finetunes=tuple(found for found in resources if isinstance(found, FineTune)),
        deployment={"metadata": {"name": "codetune-store"}},
    )
    plan = reconcile(view, Settings(), NOW)
    if owners:
        references = [reference["name"] for reference in plan.apply[0]["metadata"]["ownerReferences"]]
        assert (references, plan.requeue_after, plan.delete) == (owners, again, ())
    else:
        assert plan.apply == ()
        assert [child.kind for child in plan.delete] == ["Deployment", "Service", "Secret"]


def test_nothing_is_removed_where_nothing_is() -> None:
    plan = reconcile(StoreView("ns", KEY, projects=(make_project("a", GIT),)), Settings(), NOW)
    assert (plan.apply, plan.delete) == ((), ())


def test_its_objects_are_valid_kubernetes_and_fit_together() -> None:
    secret, service, deployment = build_store("ns", [make_project("a", UPLOAD)], Settings(), KEY)
    for built in (secret, service, deployment):
        kubernetes_validate.validate(built, "1.37", strict=True)
        assert built["metadata"]["namespace"] == "ns"
        assert built["metadata"]["ownerReferences"][0]["uid"] == "uid-a"
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"] == deployment["spec"]["selector"]["matchLabels"] == pod_selector()
    assert pod_selector().items() <= labels.items()
    assert service["spec"]["type"] == "ClusterIP"
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}
    assert deployment["spec"]["template"]["spec"]["shareProcessNamespace"] is True, (
        "it hears of its end while it starts"
    )


def test_its_pod_is_restricted_and_keeps_the_token_out_of_sight() -> None:
    secret, _, deployment = build_store("ns", [make_project("a", UPLOAD)], Settings(), KEY)
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    token = base64.b64decode(secret["data"]["token"]).decode()
    assert token == store_token(KEY, "ns")
    assert token not in str(deployment)


def test_each_namespace_and_each_operator_has_a_token_of_its_own() -> None:
    tokens = {store_token(KEY, "a"), store_token(KEY, "b"), store_token(b"another key", "a")}
    assert len(tokens) == 3
    assert all(len(token) == 64 for token in tokens)


PARTS = [
    pytest.param(True, "store-service", "codetune-store", id="the store service"),
    pytest.param(False, "server", "codetune-store", id="what serves models by that name"),
    pytest.param(False, None, "codetune-store", id="no component"),
    pytest.param(False, "store-service", "other", id="another name"),
]


@pytest.mark.parametrize(("is_part", "component", "name"), PARTS)
def test_only_its_own_objects_are_taken_for_it(is_part: bool, component: str | None, name: str, api: "Api") -> None:
    store = Store()
    labels = {"app.kubernetes.io/component": component} if component else {}
    for kind in (DEPLOYMENT, SERVICE):
        metadata = {"name": name, "namespace": "ns", "uid": f"uid-{kind.name}", "labels": labels}
        store.put({"apiVersion": kind.api_version, "kind": kind.name, "metadata": metadata})
    observer = Observer(store, LogTracker(api.connect(), lambda key: None), ServingReports(lambda: 0.0), KEY)
    view = observer.view_store("ns")
    assert (view.deployment is not None, view.service is not None) == (is_part, is_part)
