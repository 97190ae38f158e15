"""Snapshots for the reconcilers, out of the store, the logs and what serving pods say."""

from dataclasses import dataclass, field
from typing import Any, TypeVar

from codetune_api.finetune import FineTune
from codetune_api.metadata import (
    ARTIFACTS_CLAIM,
    LABEL_COMPONENT,
    LABEL_FINETUNE,
    LABEL_MODELDEPLOYMENT,
    LABEL_PROJECT,
    LABEL_TEAM,
    STORE_SERVICE,
)
from codetune_api.modeldeployment import ModelDeployment
from codetune_api.project import Project
from codetune_api.team import Team
from pydantic import ValidationError

from codetune_operator.cluster.kinds import (
    CLAIM,
    DEPLOYMENT,
    FINETUNE,
    JOB,
    MODELDEPLOYMENT,
    NODE,
    POD,
    POLICIES,
    PROJECT,
    SERVICE,
    Kind,
)
from codetune_operator.handlers.asking import ServingReports
from codetune_operator.handlers.storing import Store
from codetune_operator.handlers.tracking import LogTracker
from codetune_operator.reconcile.datasets import read_uses
from codetune_operator.reconcile.finetune.resuming import find_resuming
from codetune_operator.reconcile.modeldeployment.holding import find_holders
from codetune_operator.reconcile.observed import FineTuneView, ModelDeploymentView, ProjectView, StoreView, TeamView
from codetune_operator.reconcile.refusals import forget_refusal
from codetune_operator.resources.modeldeployment.names import adapter_token
from codetune_operator.resources.project.scan import scan_nonce
from codetune_operator.resources.store import COMPONENT
from codetune_operator.resources.team.names import gateway_name
from codetune_operator.runs.report import RunReport, from_status

Obj = dict[str, Any]
T = TypeVar("T", Project, FineTune, ModelDeployment)


@dataclass
class Observer:
    """Builds views; everything it reads is there already, but the reports of serving pods."""

    store: Store
    logs: LogTracker
    serving: ServingReports
    operator_key: bytes = field(repr=False)
    terminating: set[str] = field(default_factory=set)
    """Namespaces in which the API server makes nothing new any more."""

    def view_project(self, raw: Obj) -> ProjectView:
        """Raises: pydantic.ValidationError."""
        project = forget_refusal(Project.from_wire(raw))
        namespace, own = project.metadata.namespace, {LABEL_PROJECT: project.metadata.name}
        return ProjectView(
            project=project,
            report=self.logs.report(project_slot(project)) or RunReport(),
            read_logs=self.logs.read_logs(project_slot(project)),
            jobs=self.store.select(JOB, namespace, own),
            pods=self.store.select(POD, namespace, own),
            uses=read_uses(project.metadata.name, self.store.select(FINETUNE, namespace)),
            claim=self.store.get(CLAIM, namespace, ARTIFACTS_CLAIM),
            nodes=self.store.select(NODE),
            namespace_terminating=namespace in self.terminating,
        )

    def view_finetune(self, raw: Obj) -> FineTuneView:
        """Raises: pydantic.ValidationError."""
        finetune = forget_refusal(FineTune.from_wire(raw))
        namespace, own = finetune.metadata.namespace, {LABEL_FINETUNE: finetune.metadata.name}
        return FineTuneView(
            finetune=finetune,
            report=self.logs.report(finetune_slot(finetune)) or from_status(finetune.status),
            read_logs=self.logs.read_logs(finetune_slot(finetune)),
            project=self._find_project(namespace, finetune.spec.project_ref.name),
            start=self._find_start(finetune),
            held_by=find_holders(finetune.metadata.name, self.store.select(MODELDEPLOYMENT, namespace)),
            resumed_by=find_resuming(finetune.metadata.name, self.store.select(FINETUNE, namespace)),
            jobs=self.store.select(JOB, namespace, own),
            pods=self.store.select(POD, namespace, own),
            claim=self.store.get(CLAIM, namespace, ARTIFACTS_CLAIM),
            nodes=self.store.select(NODE),
            namespace_terminating=namespace in self.terminating,
        )

    async def view_modeldeployment(self, raw: Obj) -> ModelDeploymentView:
        """Raises: pydantic.ValidationError."""
        deployment = ModelDeployment.from_wire(raw)
        namespace, name = deployment.metadata.namespace, deployment.metadata.name
        own = {LABEL_MODELDEPLOYMENT: name}
        pods = self.store.select(POD, namespace, own)
        token = adapter_token(self.operator_key, deployment)
        return ModelDeploymentView(
            modeldeployment=deployment,
            operator_key=self.operator_key,
            report=self.logs.report(deployment_slot(deployment)) or RunReport(),
            finetunes=self._finetunes(namespace),
            deployment=self.store.get(DEPLOYMENT, namespace, name),
            service=self.store.get(SERVICE, namespace, name),
            policies=tuple(obj for kind in POLICIES for obj in self.store.select(kind, namespace, own)),
            pods=pods,
            claim=self.store.get(CLAIM, namespace, ARTIFACTS_CLAIM),
            nodes=self.store.select(NODE),
            server_reports=await self.serving.collect(namespace, pods, token),
        )

    def view_team(self, raw: Obj) -> TeamView:
        """Raises: pydantic.ValidationError."""
        team = Team.from_wire(raw)
        namespace, own = team.metadata.namespace, {LABEL_TEAM: team.metadata.name}
        deployments = (_read(ModelDeployment, found) for found in self.store.select(MODELDEPLOYMENT, namespace))
        return TeamView(
            team=team,
            modeldeployments={found.metadata.name: found for found in deployments if found is not None},
            projects=frozenset(found["metadata"]["name"] for found in self.store.select(PROJECT, namespace)),
            deployment=self.store.get(DEPLOYMENT, namespace, gateway_name(team)),
            service=self.store.get(SERVICE, namespace, gateway_name(team)),
            policies=tuple(obj for kind in POLICIES for obj in self.store.select(kind, namespace, own)),
            pods=self.store.select(POD, namespace, own),
            nodes=self.store.select(NODE),
        )

    def view_store(self, namespace: str) -> StoreView:
        """What decides about a namespace's store service."""
        projects = (_read(Project, raw) for raw in self.store.select(PROJECT, namespace))
        return StoreView(
            namespace=namespace,
            operator_key=self.operator_key,
            projects=tuple(project for project in projects if project is not None),
            finetunes=tuple(self._finetunes(namespace).values()),
            deployment=self._find_store_part(DEPLOYMENT, namespace),
            service=self._find_store_part(SERVICE, namespace),
        )

    def _find_store_part(self, kind: Kind, namespace: str) -> Obj | None:
        """Not an object of the same name that serves something else: it would be removed with the store service."""
        parts = self.store.select(kind, namespace, {LABEL_COMPONENT: COMPONENT})
        return next((obj for obj in parts if obj["metadata"]["name"] == STORE_SERVICE), None)

    def _find_start(self, finetune: FineTune) -> FineTune | None:
        wanted = finetune.spec.resume_from
        name = wanted.fine_tune_ref.name if wanted else ""
        raw = self.store.get(FINETUNE, finetune.metadata.namespace, name) if name else None
        return _read(FineTune, raw) if raw is not None else None

    def _find_project(self, namespace: str, name: str) -> Project | None:
        raw = self.store.get(PROJECT, namespace, name)
        return _read(Project, raw) if raw is not None else None

    def _finetunes(self, namespace: str) -> dict[str, FineTune]:
        """Those that can be read; one that can't says so in its own status."""
        found = (_read(FineTune, raw) for raw in self.store.select(FINETUNE, namespace))
        return {finetune.metadata.name: finetune for finetune in found if finetune is not None}


def project_slot(project: Project) -> str:
    """Each scan has a report of its own."""
    return f"{project.metadata.uid}/{scan_nonce(project)}"


def finetune_slot(finetune: FineTune) -> str:
    """All Jobs of a run share one report."""
    return finetune.metadata.uid


def deployment_slot(deployment: ModelDeployment) -> str:
    """All pods that fetch its base model share one report."""
    return deployment.metadata.uid


def _read(model: type[T], raw: Obj) -> T | None:
    try:
        return model.from_wire(raw)
    except ValidationError:
        return None
