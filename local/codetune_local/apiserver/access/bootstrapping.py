"""What is there from the beginning: the namespaces and roles that every cluster has."""

from typing import Any

from codetune_local.apiserver.errors import ApiError
from codetune_local.apiserver.registry import Registry

Obj = dict[str, Any]
NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")
_RBAC = "rbac.authorization.k8s.io"
_READ = ["get", "list", "watch"]
_WRITE = ["create", "delete", "deletecollection", "patch", "update"]
_VISIBLE = [
    *("configmaps", "endpoints", "events", "namespaces", "persistentvolumeclaims", "pods", "pods/log", "pods/status"),
    *("limitranges", "resourcequotas", "serviceaccounts", "services", "services/status"),
]
_CHANGEABLE = [
    *("configmaps", "events", "persistentvolumeclaims", "pods", "pods/attach", "pods/eviction", "pods/exec"),
    *("pods/portforward", "pods/proxy", "secrets", "serviceaccounts", "services", "services/proxy"),
]
_GROUPS = ["apps", "autoscaling", "batch", "networking.k8s.io", "policy"]


def bootstrap(registry: Registry) -> None:
    """Create what is missing of it."""
    for name in NAMESPACES:
        _ensure(registry, "namespaces", {"metadata": {"name": name}})
    for role in _roles():
        _ensure(registry, f"clusterroles.{_RBAC}", role)
    for binding in _bindings():
        _ensure(registry, f"clusterrolebindings.{_RBAC}", binding)


def _ensure(registry: Registry, resource: str, obj: Obj) -> None:
    try:
        registry.create(registry.by_key(resource), "", obj)
    except ApiError as error:
        if error.reason != "AlreadyExists":
            raise


def _rule(groups: list[str], resources: list[str], verbs: list[str]) -> Obj:
    return {"apiGroups": groups, "resources": resources, "verbs": verbs}


def _roles() -> list[Obj]:
    see = [_rule([""], _VISIBLE, _READ), _rule([*_GROUPS, "discovery.k8s.io"], ["*"], _READ)]
    edit = [
        *see,
        _rule([""], ["secrets", "pods/proxy", "services/proxy"], _READ),
        _rule([""], _CHANGEABLE, _WRITE),
        _rule([""], ["serviceaccounts/token"], ["create"]),
        _rule(_GROUPS, ["*"], _WRITE),
        _rule(["coordination.k8s.io"], ["leases"], [*_READ, *_WRITE]),
    ]
    admin = [
        *edit,
        _rule([_RBAC], ["roles", "rolebindings"], [*_READ, *_WRITE]),
        _rule(["authorization.k8s.io"], ["localsubjectaccessreviews"], ["create"]),
    ]
    everything = [_rule(["*"], ["*"], ["*"]), {"nonResourceURLs": ["*"], "verbs": ["*"]}]
    public = ["/healthz", "/livez", "/readyz", "/version", "/version/"]
    discovery = ["/api", "/api/*", "/apis", "/apis/*", "/openapi", "/openapi/*", *public]
    selves = [
        _rule(["authorization.k8s.io"], ["selfsubjectaccessreviews", "selfsubjectrulesreviews"], ["create"]),
        _rule(["authentication.k8s.io"], ["selfsubjectreviews"], ["create"]),
    ]
    return [
        _role("cluster-admin", everything),
        _role("view", see, aggregated=True),
        _role("edit", edit, aggregated=True),
        _role("admin", admin, aggregated=True),
        _role("system:discovery", [{"nonResourceURLs": discovery, "verbs": ["get"]}]),
        _role("system:public-info-viewer", [{"nonResourceURLs": public, "verbs": ["get"]}]),
        _role("system:basic-user", selves),
    ]


def _role(name: str, rules: list[Obj], *, aggregated: bool = False) -> Obj:
    role: Obj = {"kind": "ClusterRole", "metadata": {"name": name}, "rules": rules}
    if aggregated:
        label = {f"{_RBAC}/aggregate-to-{name}": "true"}
        role["aggregationRule"] = {"clusterRoleSelectors": [{"matchLabels": label}]}
    return role


def _bindings() -> list[Obj]:
    pairs = {
        "cluster-admin": "system:masters",
        "system:discovery": "system:authenticated",
        "system:public-info-viewer": "system:authenticated",
        "system:basic-user": "system:authenticated",
    }
    return [
        {
            "metadata": {"name": role},
            "roleRef": {"apiGroup": _RBAC, "kind": "ClusterRole", "name": role},
            "subjects": [{"kind": "Group", "apiGroup": _RBAC, "name": group}],
        }
        for role, group in pairs.items()
    ]
