"""What clients learn of a server: resources, schemas, tables."""

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from conformance.conftest import Api, Widgets

Obj = dict[str, Any]
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"

SERVED: dict[str, tuple[str, str, Obj]] = {
    "pods": ("/api/v1", "pods", {"kind": "Pod", "namespaced": True, "shortNames": ["po"], "categories": ["all"]}),
    "their logs": ("/api/v1", "pods/log", {"kind": "Pod", "verbs": ["get"]}),
    "namespaces": ("/api/v1", "namespaces", {"kind": "Namespace", "namespaced": False, "shortNames": ["ns"]}),
    "tokens": ("/api/v1", "serviceaccounts/token", {"kind": "TokenRequest", "group": "authentication.k8s.io"}),
    "deployments": ("/apis/apps/v1", "deployments", {"kind": "Deployment", "shortNames": ["deploy"]}),
    "their scale": ("/apis/apps/v1", "deployments/scale", {"kind": "Scale", "group": "autoscaling", "version": "v1"}),
    "jobs": ("/apis/batch/v1", "jobs", {"kind": "Job", "namespaced": True}),
    "leases": ("/apis/coordination.k8s.io/v1", "leases", {"kind": "Lease"}),
    "slices": ("/apis/discovery.k8s.io/v1", "endpointslices", {"kind": "EndpointSlice"}),
    "roles": ("/apis/rbac.authorization.k8s.io/v1", "clusterroles", {"kind": "ClusterRole", "namespaced": False}),
    "definitions": ("/apis/apiextensions.k8s.io/v1", "customresourcedefinitions", {"shortNames": ["crd", "crds"]}),
    "reviews": ("/apis/authorization.k8s.io/v1", "selfsubjectaccessreviews", {"verbs": ["create"]}),
    "a custom kind": (
        *("/apis/conformance.example.com/v1", "widgets"),
        {"kind": "Widget", "singularName": "widget", "shortNames": ["wdg"], "categories": ["gadgets"]},
    ),
    "its status": ("/apis/conformance.example.com/v1", "widgets/status", {"verbs": ["get", "patch", "update"]}),
    "its scale": ("/apis/conformance.example.com/v1", "widgets/scale", {"kind": "Scale", "group": "autoscaling"}),
}


@pytest.mark.parametrize("row", SERVED.values(), ids=SERVED.keys())
def test_a_resource_is_announced(api: "Api", row: Any) -> None:
    path, name, expected = row
    listed = {found["name"]: found for found in api.call("GET", path).body["resources"]}
    assert {key: listed[name].get(key) for key in expected} == expected


def test_groups_are_announced(api: "Api") -> None:
    groups = {group["name"]: group for group in api.call("GET", "/apis").body["groups"]}
    assert {"apps", "batch", "coordination.k8s.io", "conformance.example.com"} <= groups.keys()
    assert groups["conformance.example.com"]["preferredVersion"]["groupVersion"] == "conformance.example.com/v1"
    assert api.call("GET", "/api").body["versions"] == ["v1"]
    assert api.call("GET", "/version").body["major"] == "1"


@pytest.mark.parametrize(
    ("path", "group", "resource"), [("/api", None, "pods"), ("/apis", "conformance.example.com", "widgets")]
)
def test_everything_is_announced_in_one_document_too(api: "Api", path: str, group: str | None, resource: str) -> None:
    body = api.call("GET", path, accept=AGGREGATED).body
    assert (body["kind"], body["apiVersion"]) == ("APIGroupDiscoveryList", "apidiscovery.k8s.io/v2")
    (found,) = [item for item in body["items"] if item["metadata"].get("name") == group]
    entries = {entry["resource"]: entry for entry in found["versions"][0]["resources"]}
    assert entries[resource]["scope"] == "Namespaced"
    assert "status" in {sub["subresource"] for sub in entries[resource]["subresources"]}


def test_health_is_told(api: "Api") -> None:
    assert [api.call("GET", path).body for path in ("/healthz", "/livez", "/readyz")] == ["ok"] * 3


def test_schemas_are_published_with_their_descriptions_and_operations(api: "Api") -> None:
    paths = api.call("GET", "/openapi/v3").body["paths"]
    document = api.call("GET", paths["apis/conformance.example.com/v1"]["serverRelativeURL"]).body
    schemas = document["components"]["schemas"]
    (widget,) = [found for name, found in schemas.items() if name.endswith(".Widget")]
    assert widget["properties"]["spec"]["properties"]["model"]["description"] == "Which model."
    assert widget["x-kubernetes-group-version-kind"] == [
        {"group": "conformance.example.com", "kind": "Widget", "version": "v1"}
    ]
    operation = document["paths"]["/apis/conformance.example.com/v1/namespaces/{namespace}/widgets/{name}"]["patch"]
    assert "fieldValidation" in {parameter["name"] for parameter in operation["parameters"]}


# -- tables


def test_a_table_has_the_declared_columns(store: "Widgets", api: "Api") -> None:
    store.create("w", {"model": "a", "tags": ["x", "y"]})
    store.patch(
        "w", {"status": {"phase": "Busy", "conditions": [{"type": "Ready", "status": "True"}]}}, subresource="status"
    )
    table = api.call("GET", store.path(), accept=TABLE).body
    assert (table["kind"], table["apiVersion"]) == ("Table", "meta.k8s.io/v1")
    columns = [(found["name"], found["type"], found["priority"]) for found in table["columnDefinitions"]]
    assert columns == [
        ("Name", "string", 0),
        ("Phase", "string", 0),
        ("Replicas", "integer", 0),
        ("Ready", "string", 0),
        ("Model", "string", 1),
        ("Tags", "string", 1),
        ("Since", "date", 1),
        ("Age", "date", 0),
    ]
    cells = table["rows"][0]["cells"]
    assert cells[:7] == ["w", "Busy", 1, "True", "a", '["x","y"]', None]
    assert cells[7].endswith("s")


@pytest.mark.parametrize(
    ("include", "kind", "has_spec"),
    [("Metadata", "PartialObjectMetadata", False), ("Object", "Widget", True), ("None", None, False)],
)
def test_a_row_includes_what_was_asked_for(
    store: "Widgets", api: "Api", include: str, kind: str | None, has_spec: bool
) -> None:
    store.create("w")
    row = api.call("GET", store.path("w"), accept=TABLE, includeObject=include).body["rows"][0]
    found = row.get("object") or {}
    assert (found.get("kind"), "spec" in found) == (kind, has_spec)


COLUMNS: dict[str, tuple[str, str, list[str]]] = {
    "pods": ("/api/v1", "pods", ["Name", "Ready", "Status", "Restarts", "Age"]),
    "services": ("/api/v1", "services", ["Name", "Type", "Cluster-IP", "External-IP", "Port(s)", "Age"]),
    "configmaps": ("/api/v1", "configmaps", ["Name", "Data", "Age"]),
    "secrets": ("/api/v1", "secrets", ["Name", "Type", "Data", "Age"]),
    "claims": (
        *("/api/v1", "persistentvolumeclaims"),
        ["Name", "Status", "Volume", "Capacity", "Access Modes", "StorageClass", "VolumeAttributesClass", "Age"],
    ),
    "events": ("/api/v1", "events", ["Last Seen", "Type", "Reason", "Object", "Message"]),
    "deployments": ("/apis/apps/v1", "deployments", ["Name", "Ready", "Up-to-date", "Available", "Age"]),
    "replica sets": ("/apis/apps/v1", "replicasets", ["Name", "Desired", "Current", "Ready", "Age"]),
    "jobs": ("/apis/batch/v1", "jobs", ["Name", "Status", "Completions", "Duration", "Age"]),
    "leases": ("/apis/coordination.k8s.io/v1", "leases", ["Name", "Holder", "Age"]),
    "roles": ("/apis/rbac.authorization.k8s.io/v1", "roles", ["Name", "Created At"]),
    "bindings": ("/apis/rbac.authorization.k8s.io/v1", "rolebindings", ["Name", "Role", "Age"]),
}


@pytest.mark.parametrize("row", COLUMNS.values(), ids=COLUMNS.keys())
def test_built_in_kinds_have_their_columns(api: "Api", namespace: str, row: Any) -> None:
    root, plural, expected = row
    table = api.call("GET", f"{root}/namespaces/{namespace}/{plural}", accept=TABLE).body
    assert [found["name"] for found in table["columnDefinitions"] if found["priority"] == 0] == expected


def test_a_pod_is_shown_as_people_know_it(api: "Api", namespace: str) -> None:
    path = f"/api/v1/namespaces/{namespace}/pods"
    spec = {"containers": [{"name": "c", "image": "registry.invalid/x:1"}], "nodeSelector": {"no-such": "node"}}
    assert api.call("POST", path, {"metadata": {"name": "p"}, "spec": spec}).status == 201
    assert api.call("GET", path, accept=TABLE).body["rows"][0]["cells"][:3] == ["p", "0/1", "Pending"]
