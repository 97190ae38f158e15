"""What a reconciler gets to see: one snapshot a kind, taken before it is asked, never changed by it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from codetune_api.contracts import ServerReport
from codetune_api.finetune import FineTune
from codetune_api.modeldeployment import ModelDeployment
from codetune_api.project import Project
from codetune_api.team import Team

from codetune_operator.reconcile.datasets import DatasetUse
from codetune_operator.reconcile.plan import Obj
from codetune_operator.runs.report import RunReport


@dataclass(frozen=True)
class ProjectView:
    """A Project and what belongs to it."""

    project: Project
    report: RunReport = field(default_factory=RunReport)
    """What the current scan said so far."""
    read_logs: frozenset[tuple[str, str]] = frozenset()
    """Pod and container of the logs that nothing more is to be expected from."""
    jobs: tuple[Obj, ...] = ()
    pods: tuple[Obj, ...] = ()
    uses: tuple[DatasetUse, ...] = ()
    """FineTunes that were made on a dataset of this Project."""
    claim: Obj | None = None
    """The namespace's artifact store."""
    nodes: tuple[Obj, ...] = ()
    namespace_terminating: bool = False
    """The API server refused to make something because the namespace is going away."""


@dataclass(frozen=True)
class FineTuneView:
    """A FineTune and what belongs to it."""

    finetune: FineTune
    report: RunReport = field(default_factory=RunReport)
    """What the run said so far, over all its attempts."""
    read_logs: frozenset[tuple[str, str]] = frozenset()
    """Pod and container of the logs that nothing more is to be expected from."""
    project: Project | None = None
    """The Project that `projectRef` names, when it exists."""
    start: FineTune | None = None
    """The FineTune that `resumeFrom` names, when it exists."""
    held_by: tuple[str, ...] = ()
    """ModelDeployments that serve it."""
    resumed_by: tuple[str, ...] = ()
    """FineTunes that are not over and started from it."""
    jobs: tuple[Obj, ...] = ()
    pods: tuple[Obj, ...] = ()
    claim: Obj | None = None
    """The namespace's artifact store."""
    nodes: tuple[Obj, ...] = ()
    namespace_terminating: bool = False
    """The API server refused to make something because the namespace is going away."""


@dataclass(frozen=True)
class ModelDeploymentView:
    """A ModelDeployment and what belongs to it."""

    modeldeployment: ModelDeployment
    operator_key: bytes = field(default=b"", repr=False)
    """Key that the tokens of the adapter routes are derived from."""
    report: RunReport = field(default_factory=RunReport)
    """What the pods that fetch the base model said so far."""
    finetunes: Mapping[str, FineTune] = field(default_factory=dict)
    """FineTunes of the namespace, by name."""
    deployment: Obj | None = None
    service: Obj | None = None
    policies: tuple[Obj, ...] = ()
    """Disruption budget, autoscaler and network policy that are there."""
    pods: tuple[Obj, ...] = ()
    claim: Obj | None = None
    """The namespace's artifact store."""
    nodes: tuple[Obj, ...] = ()
    server_reports: Mapping[str, ServerReport | str] = field(default_factory=dict)
    """Pod name → what it last said, or why it could not be asked."""


@dataclass(frozen=True)
class TeamView:
    """A Team and what belongs to it."""

    team: Team
    modeldeployments: Mapping[str, ModelDeployment] = field(default_factory=dict)
    """ModelDeployments of the namespace, by name."""
    projects: frozenset[str] = frozenset()
    """Names of the Projects of the namespace."""
    deployment: Obj | None = None
    """The gateway's."""
    service: Obj | None = None
    policies: tuple[Obj, ...] = ()
    """Disruption budget and network policy that are there."""
    pods: tuple[Obj, ...] = ()
    nodes: tuple[Obj, ...] = ()


@dataclass(frozen=True)
class StoreView:
    """A namespace and who may need its store service."""

    namespace: str
    operator_key: bytes = field(default=b"", repr=False)
    """Key that the service's token is derived from."""
    projects: tuple[Project, ...] = ()
    finetunes: tuple[FineTune, ...] = ()
    deployment: Obj | None = None
    service: Obj | None = None
