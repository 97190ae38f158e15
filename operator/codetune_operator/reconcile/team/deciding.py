"""Team: from what was observed to what to do now. Pure: no client, no clock, no environment.

The gateway is there whatever becomes of the models: what is missing or not served is waited for, with its reason in
`status.models`, while the other models are served. Ready means that the gateway does what the spec says now and that
every model of the spec answers.
"""

from datetime import datetime

from codetune_api.common import Failure

from codetune_operator.reconcile.failures import classify
from codetune_operator.reconcile.observed import TeamView
from codetune_operator.reconcile.plan import Plan
from codetune_operator.reconcile.shedding import find_unwanted
from codetune_operator.reconcile.team.models import judge_models
from codetune_operator.reconcile.team.routes import build_config, find_routes
from codetune_operator.reconcile.team.status import Gateway, build_team_events, build_team_status
from codetune_operator.reconcile.workloads import newest_pods
from codetune_operator.resources.team.gateway import RESOURCES, build_gateway, digest_config
from codetune_operator.settings import Settings

LOOK_AGAIN_SECONDS = 600.0
"""When it is looked again while nothing happens: the ConfigMap is not watched, and is made anew then."""


def reconcile(view: TeamView, settings: Settings, now: datetime) -> Plan:
    """What to do about a Team now."""
    team = view.team
    if team.metadata.deletion_timestamp:
        # Nothing of it lies in the store, and its children go with it.
        return Plan()
    routes = find_routes(team.spec)
    config = build_config(team, routes, view.modeldeployments, settings)
    models = judge_models(routes, view.modeldeployments, view.projects)
    gateway = Gateway(view, digest_config(config), models, _classify(view))
    status = build_team_status(gateway, settings, now)
    children = build_gateway(team, config, settings)
    return Plan(
        status=status,
        apply=children,
        delete=find_unwanted(view.policies, children),
        events=build_team_events(team.status, status),
        requeue_after=gateway.seconds_without_keys(now) or LOOK_AGAIN_SECONDS,
    )


def _classify(view: TeamView) -> Failure | None:
    """Why its pods do not do their work; a Team has no `spec.resources` that a hint could speak of."""
    failure = classify(newest_pods(view.pods), owner=view.deployment, nodes=view.nodes)
    if failure is None or "spec.resources" not in failure.hint:
        return failure
    hint = (
        f"Each pod of the gateway asks for {RESOURCES.cpu} CPU and {RESOURCES.memory} memory, which is also its limit: "
        "make room for that on a node that spec.scheduling allows, or in the quota of the namespace. Where it ran out "
        "of memory, raise spec.replicas, so that each pod has less to do."
    )
    return failure.model_copy(update={"hint": hint})
