"""Which kinds the operator deals with, and where an API server serves them. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

from codetune_api.metadata import API_VERSION


@dataclass(frozen=True)
class Kind:
    """A kind of object."""

    api_version: str
    name: str
    plural: str
    namespaced: bool = True

    @property
    def group(self) -> str:
        """API group; empty for the core."""
        group, slash, _ = self.api_version.partition("/")
        return group if slash else ""

    @property
    def version(self) -> str:
        """API version without its group."""
        return self.api_version.rpartition("/")[2]

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        """URL path of an object, or of the list when no name is given."""
        parts = ["apis" if self.group else "api", *self.api_version.split("/")]
        if self.namespaced and namespace:
            parts += ["namespaces", namespace]
        parts += [self.plural, *([name] if name else []), *([subresource] if subresource else [])]
        return "/" + "/".join(quote(part, safe="") for part in parts)


PROJECT = Kind(API_VERSION, "Project", "projects")
FINETUNE = Kind(API_VERSION, "FineTune", "finetunes")
MODELDEPLOYMENT = Kind(API_VERSION, "ModelDeployment", "modeldeployments")
TEAM = Kind(API_VERSION, "Team", "teams")
JOB = Kind("batch/v1", "Job", "jobs")
DEPLOYMENT = Kind("apps/v1", "Deployment", "deployments")
POD = Kind("v1", "Pod", "pods")
SERVICE = Kind("v1", "Service", "services")
CONFIGMAP = Kind("v1", "ConfigMap", "configmaps")
SECRET = Kind("v1", "Secret", "secrets")
CLAIM = Kind("v1", "PersistentVolumeClaim", "persistentvolumeclaims")
EVENT = Kind("v1", "Event", "events")
NAMESPACE = Kind("v1", "Namespace", "namespaces", namespaced=False)
NODE = Kind("v1", "Node", "nodes", namespaced=False)
BUDGET = Kind("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets")
AUTOSCALER = Kind("autoscaling/v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers")
LEASE = Kind("coordination.k8s.io/v1", "Lease", "leases")
NETWORKPOLICY = Kind("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies")
POLICIES = (BUDGET, AUTOSCALER, NETWORKPOLICY)
"""What surrounds serving pods and gateways."""

_ALL = (
    PROJECT, FINETUNE, MODELDEPLOYMENT, TEAM, JOB, DEPLOYMENT, POD, SERVICE, CONFIGMAP, SECRET, CLAIM, EVENT,
    NODE, *POLICIES,
)  # fmt: skip
KINDS: Mapping[tuple[str, str], Kind] = {(kind.api_version, kind.name): kind for kind in _ALL}


def kind_of(api_version: str, name: str) -> Kind:
    """The kind of an object. Raises: KeyError, for a kind that the operator has no business with."""
    return KINDS[api_version, name]


_PLURALS: Mapping[str, Kind] = {kind.plural: kind for kind in (*_ALL, NAMESPACE, LEASE)}


def kind_at(path: str) -> Kind | None:
    """The kind that a request is about, by its path; None for another one than the operator's.

    `/api/v1/namespaces/NS/pods/NAME/log` is about Pods, `/api/v1/namespaces/NS` about Namespaces.
    """
    parts = path.strip("/").split("/")
    inside = parts[2 if parts[0] == "api" else 3 :]
    if inside[:1] == ["namespaces"] and len(inside) > 2:
        inside = inside[2:]
    return _PLURALS.get(inside[0]) if inside else None
