"""Where a Team's requests go: a route for its default, and one for each of its projects. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from codetune_api.gateway import GatewayConfig, Upstream
from codetune_api.modeldeployment import ModelDeployment, ServiceSpec
from codetune_api.team import CompletionModel, Team, TeamSpec

from codetune_operator.reconcile.rollouts import find_endpoint
from codetune_operator.resources.modeldeployment.names import served_name
from codetune_operator.settings import Settings


@dataclass(frozen=True)
class Route:
    """One of them."""

    project: str
    """Empty: the team's default."""
    project_field: str
    """Where the spec names the project; empty for the default."""
    model_field: str
    """Where the spec names the model."""
    wanted: CompletionModel


def find_routes(spec: TeamSpec) -> tuple[Route, ...]:
    """The default first, then the projects in the order of the spec."""
    default, field = spec.completion_model, "spec.completionModel"
    found = [Route("", "", field, default)] if default is not None else []
    for index, entry in enumerate(spec.projects):
        place = f"spec.projects[{index}]"
        own = entry.completion_model
        wanted = own or default
        if wanted is not None:
            model_field = f"{place}.completionModel" if own else field
            found.append(Route(entry.project_ref.name, f"{place}.projectRef", model_field, wanted))
    return tuple(found)


def find_model(route: Route, deployment: ModelDeployment | None) -> str:
    """The name that the model has there; empty while it is not known."""
    return route.wanted.model or (served_name(deployment) if deployment is not None else "")


def build_config(
    team: Team, routes: Iterable[Route], deployments: Mapping[str, ModelDeployment], settings: Settings
) -> GatewayConfig:
    """What each pod of the gateway is told. A route to what is not there stays, so that its requests are told why.

    Args:
        team: The Team.
        routes: Its routes.
        deployments: ModelDeployments of the namespace by name; those that do not exist are missing.
        settings: The operator's settings.
    """
    upstreams = {route.project: _build_upstream(team, route, deployments, settings) for route in routes}
    limit = team.spec.limits.requests_per_minute
    return GatewayConfig(
        team=team.metadata.name,
        default=upstreams.pop("", None),
        projects=upstreams,
        requests_per_minute=limit / max(1, team.spec.replicas) if limit is not None else None,
    )


def _build_upstream(
    team: Team, route: Route, deployments: Mapping[str, ModelDeployment], settings: Settings
) -> Upstream:
    name = route.wanted.deployment_ref.name
    deployment = deployments.get(name)
    model = find_model(route, deployment)
    # The name of a Service that is not there yet is known: it comes and goes without new pods of the gateway.
    spec = deployment.spec.service if deployment is not None else ServiceSpec()
    url = find_endpoint(name, team.metadata.namespace, spec.port, None, settings)
    if url is None and deployment is not None:
        url = deployment.status.endpoint
    keys = deployment.spec.api_keys_secret_ref if deployment is not None else None
    return Upstream(url=url if model else None, model=model, deployment=name, keys=keys.name if keys else None)
