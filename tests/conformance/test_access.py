"""Who may do what: tokens of ServiceAccounts, RBAC on every request, and questions about both."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from conformance.conftest import Api

Obj = dict[str, Any]
RBAC = "rbac.authorization.k8s.io"
RULES = [
    {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "watch", "create"]},
    {"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["known"], "verbs": ["get"]},
    {"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]},
    {"apiGroups": ["conformance.example.com"], "resources": ["widgets"], "verbs": ["list", "patch"]},
    {"apiGroups": ["conformance.example.com"], "resources": ["widgets/status"], "verbs": ["patch"]},
    {"apiGroups": ["apps"], "resources": ["*"], "verbs": ["list"]},
]


def until(is_so: Callable[[], bool]) -> None:
    """A real API server learns of accounts and roles through watches, and remembers a token for ten seconds."""
    deadline = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def robot(api: "Api", namespace: str) -> "Api":
    """The requests of a ServiceAccount with the rules above, in one namespace."""
    root, rbac = f"/api/v1/namespaces/{namespace}", f"/apis/{RBAC}/v1/namespaces/{namespace}"
    assert api.call("POST", f"{root}/serviceaccounts", {"metadata": {"name": "robot"}}).status == 201
    assert api.call("POST", f"{rbac}/roles", {"metadata": {"name": "some"}, "rules": RULES}).status == 201
    binding = {
        "metadata": {"name": "some"},
        "roleRef": {"apiGroup": RBAC, "kind": "Role", "name": "some"},
        "subjects": [{"kind": "ServiceAccount", "name": "robot", "namespace": namespace}],
    }
    assert api.call("POST", f"{rbac}/rolebindings", binding).status == 201
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 600}}
    reply = api.call("POST", f"{root}/serviceaccounts/robot/token", request)
    assert reply.status == 201, reply.body
    found = api.as_account(reply.body["status"]["token"])
    until(lambda: found.call("GET", f"{root}/configmaps").status == 200)
    return found


def test_a_token_says_who_it_is(robot: "Api", namespace: str) -> None:
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    user = robot.call("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", body).body["status"]["userInfo"]
    assert user["username"] == f"system:serviceaccount:{namespace}:robot"
    assert {"system:authenticated", "system:serviceaccounts", f"system:serviceaccounts:{namespace}"} <= set(
        user["groups"]
    )


def test_a_token_that_nobody_issued_is_unauthorized(api: "Api") -> None:
    stranger = api.as_account("nonsense")
    reply = stranger.call("GET", "/api/v1/namespaces")
    assert (reply.status, reply.body["reason"], reply.message) == (401, "Unauthorized", "Unauthorized")


def test_a_token_ends_with_its_account(api: "Api", robot: "Api", namespace: str) -> None:
    path = f"/api/v1/namespaces/{namespace}"
    assert robot.call("GET", f"{path}/configmaps").status == 200
    api.call("DELETE", f"{path}/serviceaccounts/robot")
    until(lambda: robot.call("GET", f"{path}/configmaps").status == 401)


ANSWERS: dict[str, tuple[str, str, int]] = {
    "listing what is allowed": ("GET", "/api/v1/namespaces/{}/configmaps", 200),
    "listing a whole group": ("GET", "/apis/apps/v1/namespaces/{}/deployments", 200),
    "getting by an allowed name (which is not there)": ("GET", "/api/v1/namespaces/{}/secrets/known", 404),
    "getting by another name": ("GET", "/api/v1/namespaces/{}/secrets/other", 403),
    "listing what only names are allowed of": ("GET", "/api/v1/namespaces/{}/secrets", 403),
    "listing just the allowed name, without the verb": (
        "GET",
        "/api/v1/namespaces/{}/secrets?fieldSelector=metadata.name%3Dknown",
        403,
    ),
    "a verb that is not allowed": ("DELETE", "/api/v1/namespaces/{}/configmaps/x", 403),
    "a subresource that is allowed (of what is not there)": ("GET", "/api/v1/namespaces/{}/pods/x/log", 404),
    "the resource of that subresource": ("GET", "/api/v1/namespaces/{}/pods/x", 403),
    "another namespace": ("GET", "/api/v1/namespaces/kube-system/configmaps", 403),
    "all namespaces": ("GET", "/api/v1/configmaps", 403),
    "a cluster-wide resource": ("GET", "/api/v1/nodes", 403),
    "discovery": ("GET", "/apis", 200),
    "the version": ("GET", "/version", 200),
    "the schemas": ("GET", "/openapi/v3", 200),
    "metrics of the server": ("GET", "/metrics", 403),
}


@pytest.mark.parametrize("row", ANSWERS.values(), ids=ANSWERS.keys())
def test_every_request_is_weighed(robot: "Api", namespace: str, row: Any) -> None:
    method, path, status = row
    assert robot.call(method, path.format(namespace)).status == status


def test_a_refusal_says_who_can_not_do_what_and_where(robot: "Api", namespace: str) -> None:
    who = f'User "system:serviceaccount:{namespace}:robot" cannot'
    reply = robot.call("GET", f"/api/v1/namespaces/{namespace}/pods/x")
    where = f'in API group "" in the namespace "{namespace}"'
    assert reply.message == f'pods "x" is forbidden: {who} get resource "pods" {where}'
    reply = robot.call("GET", "/apis/conformance.example.com/v1/widgets/")
    assert reply.message == (
        f'widgets.conformance.example.com is forbidden: {who} list resource "widgets" '
        'in API group "conformance.example.com" at the cluster scope'
    )


def test_the_status_is_a_right_of_its_own(robot: "Api", api: "Api", namespace: str) -> None:
    path = f"/apis/conformance.example.com/v1/namespaces/{namespace}/widgets"
    assert (
        api.call(
            "POST",
            path,
            {
                "apiVersion": "conformance.example.com/v1",
                "kind": "Widget",
                "metadata": {"name": "w"},
                "spec": {"model": "a"},
            },
        ).status
        == 201
    )
    assert robot.call("PATCH", f"{path}/w/status", {"status": {"phase": "Busy"}}, content="merge").status == 200
    assert robot.call("GET", f"{path}/w/status").status == 403
    assert robot.call("PATCH", f"{path}/w/scale", {"spec": {"replicas": 2}}, content="merge").status == 403


def test_a_cluster_role_bound_in_a_namespace_holds_in_it_alone(api: "Api", robot: "Api", namespace: str) -> None:
    role: Obj = {"metadata": {"generateName": "conformance-"}}
    role["rules"] = [{"apiGroups": [""], "resources": ["services"], "verbs": ["list"]}]
    name = api.call("POST", f"/apis/{RBAC}/v1/clusterroles", role).body["metadata"]["name"]
    binding = {
        "metadata": {"name": "viewer"},
        "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": name},
        "subjects": [{"kind": "Group", "apiGroup": RBAC, "name": f"system:serviceaccounts:{namespace}"}],
    }
    assert api.call("POST", f"/apis/{RBAC}/v1/namespaces/{namespace}/rolebindings", binding).status == 201
    until(lambda: robot.call("GET", f"/api/v1/namespaces/{namespace}/services").status == 200)
    assert robot.call("GET", "/api/v1/namespaces/default/services").status == 403
    api.call("DELETE", f"/apis/{RBAC}/v1/clusterroles/{name}")


def test_the_role_of_a_binding_can_not_change(api: "Api", robot: "Api", namespace: str) -> None:
    path = f"/apis/{RBAC}/v1/namespaces/{namespace}/rolebindings/some"
    reply = api.call("PATCH", path, {"roleRef": {"name": "other"}}, content="merge")
    assert (reply.status, "cannot change roleRef" in reply.message) == (422, True)


QUESTIONS: dict[str, tuple[Obj, bool]] = {
    "what is allowed": ({"verb": "create", "resource": "configmaps"}, True),
    "what is not": ({"verb": "delete", "resource": "configmaps"}, False),
    "a subresource": ({"verb": "get", "resource": "pods", "subresource": "log"}, True),
    "an allowed name": ({"verb": "get", "resource": "secrets", "name": "known"}, True),
    "any name": ({"verb": "get", "resource": "secrets"}, False),
}


@pytest.mark.parametrize("row", QUESTIONS.values(), ids=QUESTIONS.keys())
def test_one_may_ask_before(robot: "Api", namespace: str, row: Any) -> None:
    attributes, expected = row
    spec = {"resourceAttributes": {"namespace": namespace, **attributes}}
    body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": spec}
    reply = robot.call("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", body)
    assert (reply.status, reply.body["status"]["allowed"]) == (201, expected)


def test_an_admin_may_ask_for_another_user(api: "Api", robot: "Api", namespace: str) -> None:
    user = f"system:serviceaccount:{namespace}:robot"
    spec = {"user": user, "resourceAttributes": {"namespace": namespace, "verb": "list", "resource": "configmaps"}}
    body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
    path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
    assert api.call("POST", path, body).body["status"]["allowed"] is True
    assert robot.call("POST", path, body).status == 403


def test_a_token_can_be_reviewed(api: "Api", robot: "Api", namespace: str) -> None:
    path = "/apis/authentication.k8s.io/v1/tokenreviews"
    about = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview"}
    good = api.call("POST", path, {**about, "spec": {"token": robot.token}}).body["status"]
    assert (good["authenticated"], good["user"]["username"]) == (True, f"system:serviceaccount:{namespace}:robot")
    bad = api.call("POST", path, {**about, "spec": {"token": "nonsense"}}).body["status"]
    assert not bad.get("authenticated")


def test_applying_what_is_not_there_takes_the_right_to_create(robot: "Api", namespace: str) -> None:
    body = {"apiVersion": "conformance.example.com/v1", "kind": "Widget", "metadata": {"name": "w"}}
    path = f"/apis/conformance.example.com/v1/namespaces/{namespace}/widgets/w"
    reply = robot.call("PATCH", path, {**body, "spec": {"model": "a"}}, content="apply", fieldManager="one")
    assert (reply.status, "cannot create resource" in reply.message) == (403, True)
