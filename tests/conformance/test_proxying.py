"""`services/proxy`: whose rights it takes, and what it says when nobody is behind a Service.

What passes through it is tested against the local API server alone (tests/unit/local_api): a real one forwards to pods
only, and a control plane without nodes has none.
"""

import time
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from conformance.conftest import Api

RBAC = "rbac.authorization.k8s.io"
RULES = [
    {
        "apiGroups": [""],
        "resources": ["services/proxy"],
        "resourceNames": ["http:web:8080"],
        "verbs": ["get", "update"],
    },
    {"apiGroups": [""], "resources": ["services"], "verbs": ["list"]},
]


@pytest.fixture
def caller(api: "Api", namespace: str) -> "Api":
    """A ServiceAccount with the rules above, beside a Service `web` that nobody is behind."""
    root, rbac = f"/api/v1/namespaces/{namespace}", f"/apis/{RBAC}/v1/namespaces/{namespace}"
    spec = {"ports": [{"name": "http", "port": 8080}], "selector": {"app": "web"}}
    assert api.call("POST", f"{root}/services", {"metadata": {"name": "web"}, "spec": spec}).status == 201
    # What a controller makes, where one runs: without it the API server finds no list of endpoints to look into.
    assert api.call("POST", f"{root}/endpoints", {"metadata": {"name": "web"}}).status in {201, 409}
    assert api.call("POST", f"{root}/serviceaccounts", {"metadata": {"name": "caller"}}).status == 201
    assert api.call("POST", f"{rbac}/roles", {"metadata": {"name": "proxy"}, "rules": RULES}).status == 201
    binding = {
        "metadata": {"name": "proxy"},
        "roleRef": {"apiGroup": RBAC, "kind": "Role", "name": "proxy"},
        "subjects": [{"kind": "ServiceAccount", "name": "caller", "namespace": namespace}],
    }
    assert api.call("POST", f"{rbac}/rolebindings", binding).status == 201
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 600}}
    reply = api.call("POST", f"{root}/serviceaccounts/caller/token", request)
    assert reply.status == 201, reply.body
    found = api.as_account(reply.body["status"]["token"])
    deadline = time.monotonic() + 30  # a real API server learns of roles through watches
    while found.call("GET", f"{root}/services").status != 200:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


CALLS: dict[str, tuple[int, str, str]] = {
    "the name with scheme and port, as the role has it": (503, "GET", "http:web:8080/proxy/v1"),
    "a body under the same name": (503, "PUT", "http:web:8080/proxy/v1/x?offset=3"),
    "a verb that the role does not have": (403, "POST", "http:web:8080/proxy/v1"),
    "a verb that takes away": (403, "DELETE", "http:web:8080/proxy/v1"),
    "the same Service without its scheme": (403, "GET", "web:8080/proxy/v1"),
    "the same Service by its name alone": (403, "GET", "web/proxy/v1"),
    "another port of it": (403, "GET", "http:web:9090/proxy/v1"),
    "another Service": (403, "GET", "http:other:8080/proxy/v1"),
}


@pytest.mark.parametrize("row", CALLS.values(), ids=CALLS.keys())
def test_a_role_names_a_service_as_the_path_does(caller: "Api", namespace: str, row: Any) -> None:
    status, method, path = row
    body = {} if method in {"POST", "PUT"} else None
    reply = caller.call(method, f"/api/v1/namespaces/{namespace}/services/{path}", body)
    assert (reply.status, reply.body["kind"]) == (status, "Status")


def test_a_service_that_nobody_is_behind_says_so(api: "Api", caller: "Api", namespace: str) -> None:
    reply = api.call("GET", f"/api/v1/namespaces/{namespace}/services/http:web:8080/proxy/v1")
    assert (reply.status, reply.body["reason"]) == (503, "ServiceUnavailable")
    assert "no endpoints available for service" in reply.message


def test_a_service_that_is_not_there_is_not_found(api: "Api", namespace: str) -> None:
    reply = api.call("GET", f"/api/v1/namespaces/{namespace}/services/http:nowhere:8080/proxy/v1")
    assert (reply.status, reply.body["reason"]) == (404, "NotFound")
