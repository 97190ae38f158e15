"""Which of a Team's models answer now, and why others do not. Pure."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from codetune_api.modeldeployment import ModelDeployment
from codetune_api.team import TeamModel

from codetune_operator.reconcile import conditions
from codetune_operator.reconcile.team.routes import Route, find_model
from codetune_operator.resources.modeldeployment.names import served_name

_WORDS = 2000
_NAMES = 10
"""How many models that are served a sentence names."""


@dataclass(frozen=True)
class JudgedModel:
    """A model's entry in the status, and what is to be expected of it."""

    state: TeamModel
    is_lasting: bool = False
    """What is amiss stays so until somebody edits a resource."""


def judge_models(
    routes: Iterable[Route], deployments: Mapping[str, ModelDeployment], projects: Collection[str]
) -> tuple[JudgedModel, ...]:
    """Every route's model, in their order.

    Args:
        routes: The Team's routes.
        deployments: ModelDeployments of the namespace by name; those that do not exist are missing.
        projects: Names of the Projects of the namespace.
    """
    return tuple(_judge(route, deployments.get(route.wanted.deployment_ref.name), projects) for route in routes)


def _judge(route: Route, deployment: ModelDeployment | None, projects: Collection[str]) -> JudgedModel:
    model, name = find_model(route, deployment), route.wanted.deployment_ref.name
    state = TeamModel(project=route.project, deployment=name, model=model, ready=False)
    if deployment is None:
        message = (
            f"{route.model_field}.deploymentRef names ModelDeployment {name!r}, which does not exist in this "
            "namespace: create it, or correct the name."
        )
        return JudgedModel(_tell(state, "DeploymentNotFound", message))
    if model not in deployment.status.models:
        message, is_lasting = _explain(route, deployment, model)
        return JudgedModel(_tell(state, "ModelNotServed", message), is_lasting)
    state = state.model_copy(update={"ready": True})
    if route.project and route.project not in projects:
        message = (
            f"{route.project_field} names Project {route.project!r}, which does not exist in this namespace: create "
            "it, or correct the name. Requests that name it are answered all the same."
        )
        return JudgedModel(_tell(state, "ProjectNotFound", message))
    return JudgedModel(state)


def _tell(state: TeamModel, reason: str, message: str) -> TeamModel:
    return state.model_copy(update={"reason": reason, "message": message[:_WORDS]})


def _explain(route: Route, deployment: ModelDeployment, model: str) -> tuple[str, bool]:
    """Why a ModelDeployment does not serve a model, and whether that lasts."""
    name, status = deployment.metadata.name, deployment.status
    told = conditions.find(status.conditions, "Ready")
    why = told.message if told and told.message else "it has not told yet how it is doing."
    is_stalled = conditions.find(status.conditions, "Stalled") is not None
    subject = f"ModelDeployment {name!r}, which {route.model_field} names,"
    adapter = next((entry for entry in status.adapters if entry.name == model), None)
    is_refused = adapter is not None and adapter.phase in {"Failed", "Held"}
    if not status.models and not is_refused:
        return f"{subject} serves nothing now: {why}", is_stalled
    if adapter is not None:
        how = adapter.message or f"that adapter is {adapter.phase}, and ready on {adapter.ready_replicas} replicas."
        reason = f" ({adapter.reason})" if adapter.reason else ""
        return f"{subject} does not serve {model!r} now{reason}: {how}", is_refused
    if model == served_name(deployment) or model in {entry.name for entry in deployment.spec.adapters}:
        return f"{subject} does not serve {model!r} now: {why}", is_stalled
    served = ", ".join(status.models[:_NAMES]) + (", …" if len(status.models) > _NAMES else "")
    message = (
        f"{route.model_field}.model is {model!r}, and ModelDeployment {name!r} has no model of that name; it serves: "
        f"{served}. Choose one of those, or give that ModelDeployment an adapter of this name."
    )
    # Its labels may still find a FineTune of that name, and what was just edited may not be served yet.
    is_settled = status.observed_generation == deployment.metadata.generation and told is not None
    return message, is_settled and deployment.spec.adapter_selector is None
