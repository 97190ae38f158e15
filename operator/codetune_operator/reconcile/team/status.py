"""The status of a Team: what its gateway's Deployment and pods say, and which of its models answer. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from codetune_api.common import Failure
from codetune_api.team import TeamModel, TeamStatus

from codetune_operator.reconcile import conditions
from codetune_operator.reconcile.durations import seconds_until
from codetune_operator.reconcile.observed import TeamView
from codetune_operator.reconcile.plan import EventSpec, Obj
from codetune_operator.reconcile.rollouts import (
    build_failure_events,
    count,
    find_endpoint,
    is_rolled_out,
    is_stuck,
    lack_keys,
    say_available,
    say_stopped,
)
from codetune_operator.reconcile.team.models import JudgedModel
from codetune_operator.reconcile.workloads import container_entry, newest_pods
from codetune_operator.resources.team.gateway import digest_of
from codetune_operator.resources.team.names import CONTAINER, gateway_name
from codetune_operator.settings import Settings

TeamPhase = Literal["Pending", "Starting", "Ready", "Updating", "Stopped", "Failed"]

KEY_SECONDS = 15.0
"""How long a gateway may run and admit nobody before that counts as a lack of keys: it reads them as it starts."""


@dataclass(frozen=True)
class Gateway:
    """What was found out."""

    view: TeamView
    digest: str
    """Of the configuration that its pods are to have."""
    models: Sequence[JudgedModel]
    failure: Failure | None

    @property
    def wanted(self) -> int:
        """Replicas that are asked for."""
        return self.view.team.spec.replicas

    @property
    def available(self) -> int:
        """Replicas that answer."""
        return count(self.view.deployment, "availableReplicas")

    @property
    def is_in_force(self) -> bool:
        """Every replica answers as the spec says now."""
        deployment = self.view.deployment
        return digest_of(deployment) == self.digest and is_rolled_out(deployment, self.wanted)

    def seconds_without_keys(self, now: datetime) -> float | None:
        """Seconds until the gateway counts as having no key, none left when it does; None: it does not look like it."""
        waiting = [pod for pod in self.view.pods if _admits_nobody(pod)]
        if not waiting or self.available or self.failure is not None:
            return None
        since = [container_entry(pod, CONTAINER)["state"]["running"].get("startedAt") for pod in waiting]
        return max(0.0, min(seconds_until(text, KEY_SECONDS, now) if text else KEY_SECONDS for text in since))

    def find_lack(self, now: datetime) -> Failure | None:
        """That it has no key."""
        return lack_keys(self.view.team.spec.api_keys_secret_ref.name) if self.seconds_without_keys(now) == 0 else None


def build_team_status(gateway: Gateway, settings: Settings, now: datetime) -> TeamStatus:
    """The whole new status."""
    view, team = gateway.view, gateway.view.team
    phase, wanted = _judge(gateway, now)
    available = gateway.available
    wanted = {**wanted, **say_available(available, gateway.wanted)}
    name, namespace, generation = gateway_name(team), team.metadata.namespace, team.metadata.generation
    return TeamStatus(
        phase=phase,
        observed_generation=generation,
        conditions=conditions.update(team.status.conditions, wanted, generation, now),
        endpoint=find_endpoint(name, namespace, team.spec.service.port, view.service, settings),
        replicas=count(view.deployment, "replicas"),
        ready_replicas=count(view.deployment, "readyReplicas"),
        models=[model.state for model in gateway.models],
        failure=gateway.failure or gateway.find_lack(now),
    )


def build_team_events(before: TeamStatus, after: TeamStatus) -> tuple[EventSpec, ...]:
    """What a person would want to see of the change; nothing when the picture is the same."""
    events = build_failure_events(before.failure, after.failure)
    former = {model.project: model for model in before.models}
    for model in after.models:
        events.extend(_model_events(former.get(model.project), model))
    if before.phase != after.phase and after.phase in {"Ready", "Stopped"}:
        ready = conditions.find(after.conditions, "Ready")
        events.append(EventSpec("Normal", after.phase, ready.message if ready else ""))
    return tuple(events)


def _model_events(old: TeamModel | None, new: TeamModel) -> list[EventSpec]:
    was_ready = old is not None and old.ready
    if new.ready and (not was_ready or old is None or (old.deployment, old.model) != (new.deployment, new.model)):
        whose = f"For project {new.project!r}" if new.project else "Where no project is named,"
        message = f"{whose} {new.model!r} of ModelDeployment {new.deployment!r} answers."
        return [EventSpec("Normal", "ModelReady", message)]
    if was_ready and not new.ready:
        return [EventSpec("Warning", new.reason, new.message)]
    return []


def _judge(gateway: Gateway, now: datetime) -> tuple[TeamPhase, conditions.Wanted]:
    """Phase and conditions, the most pressing matter first."""
    failure, available, deployment = gateway.failure, gateway.available, gateway.view.deployment
    if gateway.wanted == 0 and count(deployment, "replicas") == 0:
        return "Stopped", say_stopped()
    if failure is not None and is_stuck(failure, newest_pods(gateway.view.pods), CONTAINER):
        return "Updating" if available else "Failed", conditions.stalled(failure.reason, failure.message)
    if lack := gateway.find_lack(now):
        return "Failed", conditions.stalled(lack.reason, f"{lack.message} {lack.hint}")
    if not gateway.is_in_force:
        phase: TeamPhase = "Pending" if deployment is None else "Updating" if available else "Starting"
        said = f"{available} of {gateway.wanted} replicas answer requests; the others are starting."
        reason, message = (failure.reason, failure.message) if failure else ("Rolling" if available else phase, said)
        return phase, conditions.reconciling(reason, message)
    return _judge_models(gateway)


def _judge_models(gateway: Gateway) -> tuple[TeamPhase, conditions.Wanted]:
    amiss = sorted((model for model in gateway.models if model.state.reason), key=lambda model: not model.is_lasting)
    if not amiss:
        message = f"{gateway.wanted} replicas admit the team's keys, and all {len(gateway.models)} models answer."
        return "Ready", conditions.ready("Serving", message)
    first = amiss[0]
    others = f" ({len(amiss) - 1} more like this)" if len(amiss) > 1 else ""
    message = f"{first.state.message}{others} The rest is served."
    if first.is_lasting:
        return "Failed", conditions.stalled(first.state.reason, message)
    return "Updating", conditions.reconciling(first.state.reason, message)


def _admits_nobody(pod: Obj) -> bool:
    """It has started, and says itself that it is not ready."""
    entry = container_entry(pod, CONTAINER)
    is_up = "running" in entry.get("state", {}) and bool(entry.get("started")) and not entry.get("ready")
    return is_up and not pod["metadata"].get("deletionTimestamp")
