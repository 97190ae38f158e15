"""Which resources are served: the built-in ones as a table, custom ones from their definitions."""

from dataclasses import dataclass, field
from typing import Any

from codetune_local.apiserver.errors import qualified


@dataclass(frozen=True)
class ResourceInfo:
    """One served resource."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    subresources: tuple[str, ...] = ()
    custom: dict[str, Any] | None = field(default=None, compare=False, repr=False)
    """The served entry of `spec.versions` of its CustomResourceDefinition; None for a built-in resource."""

    @property
    def key(self) -> str:
        """`jobs.batch`, `pods`."""
        return qualified(self.plural, self.group)

    @property
    def api_version(self) -> str:
        """`batch/v1`, `v1`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def schema(self) -> dict[str, Any] | None:
        """The OpenAPI schema of a custom resource."""
        found: dict[str, Any] | None = (self.custom or {}).get("schema", {}).get("openAPIV3Schema")
        return found


ALL = ("all",)
_S = ("status",)
_SCALED = ("status", "scale")

BUILTIN: tuple[ResourceInfo, ...] = (
    ResourceInfo("", "v1", "namespaces", "Namespace", False, ("ns",), (), ("status", "finalize")),
    ResourceInfo(
        "",
        "v1",
        "pods",
        "Pod",
        True,
        ("po",),
        ALL,
        ("status", "log", "binding", "eviction", "proxy", "exec", "attach", "portforward"),
    ),
    ResourceInfo("", "v1", "services", "Service", True, ("svc",), ALL, ("status", "proxy")),
    ResourceInfo("", "v1", "configmaps", "ConfigMap", True, ("cm",)),
    ResourceInfo("", "v1", "secrets", "Secret"),
    ResourceInfo("", "v1", "serviceaccounts", "ServiceAccount", True, ("sa",), (), ("token",)),
    ResourceInfo("", "v1", "events", "Event", True, ("ev",)),
    ResourceInfo("", "v1", "nodes", "Node", False, ("no",), (), _S),
    ResourceInfo("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim", True, ("pvc",), (), _S),
    ResourceInfo("", "v1", "persistentvolumes", "PersistentVolume", False, ("pv",), (), _S),
    ResourceInfo("", "v1", "endpoints", "Endpoints", True, ("ep",)),
    ResourceInfo("", "v1", "resourcequotas", "ResourceQuota", True, ("quota",), (), _S),
    ResourceInfo("", "v1", "limitranges", "LimitRange", True, ("limits",)),
    ResourceInfo("events.k8s.io", "v1", "events", "Event", True, ("ev",)),
    ResourceInfo("apps", "v1", "deployments", "Deployment", True, ("deploy",), ALL, _SCALED),
    ResourceInfo("apps", "v1", "replicasets", "ReplicaSet", True, ("rs",), ALL, _SCALED),
    ResourceInfo("apps", "v1", "statefulsets", "StatefulSet", True, ("sts",), ALL, _SCALED),
    ResourceInfo("apps", "v1", "daemonsets", "DaemonSet", True, ("ds",), ALL, _S),
    ResourceInfo("batch", "v1", "jobs", "Job", True, (), ALL, _S),
    ResourceInfo("batch", "v1", "cronjobs", "CronJob", True, ("cj",), ALL, _S),
    ResourceInfo("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice"),
    ResourceInfo("coordination.k8s.io", "v1", "leases", "Lease"),
    ResourceInfo("rbac.authorization.k8s.io", "v1", "roles", "Role"),
    ResourceInfo("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding"),
    ResourceInfo("rbac.authorization.k8s.io", "v1", "clusterroles", "ClusterRole", False),
    ResourceInfo("rbac.authorization.k8s.io", "v1", "clusterrolebindings", "ClusterRoleBinding", False),
    ResourceInfo("storage.k8s.io", "v1", "storageclasses", "StorageClass", False, ("sc",)),
    ResourceInfo("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget", True, ("pdb",), (), _S),
    ResourceInfo("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy", True, ("netpol",)),
    ResourceInfo("networking.k8s.io", "v1", "ingresses", "Ingress", True, ("ing",), (), _S),
    ResourceInfo("autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler", True, ("hpa",), ALL, _S),
    ResourceInfo("scheduling.k8s.io", "v1", "priorityclasses", "PriorityClass", False, ("pc",)),
    ResourceInfo(
        "apiextensions.k8s.io",
        "v1",
        "customresourcedefinitions",
        "CustomResourceDefinition",
        False,
        ("crd", "crds"),
        ("api-extensions",),
        _S,
    ),
)

REVIEWS = {
    ("authorization.k8s.io", "selfsubjectaccessreviews"): ("SelfSubjectAccessReview", False),
    ("authorization.k8s.io", "subjectaccessreviews"): ("SubjectAccessReview", False),
    ("authorization.k8s.io", "localsubjectaccessreviews"): ("LocalSubjectAccessReview", True),
    ("authorization.k8s.io", "selfsubjectrulesreviews"): ("SelfSubjectRulesReview", False),
    ("authentication.k8s.io", "tokenreviews"): ("TokenReview", False),
    ("authentication.k8s.io", "selfsubjectreviews"): ("SelfSubjectReview", False),
}
"""Questions that are answered and not stored: (group, plural) → kind, namespaced."""


def custom_resources(definition: dict[str, Any]) -> list[ResourceInfo]:
    """What a CustomResourceDefinition serves."""
    spec = definition["spec"]
    names = spec["names"]
    return [
        ResourceInfo(
            spec["group"],
            version["name"],
            names["plural"],
            names["kind"],
            spec["scope"] == "Namespaced",
            tuple(names.get("shortNames") or ()),
            tuple(names.get("categories") or ()),
            tuple((version.get("subresources") or {}).keys()),
            version,
        )
        for version in spec["versions"]
        if version.get("served")
    ]
