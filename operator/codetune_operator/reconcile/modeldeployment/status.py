"""The status of a ModelDeployment: what its Deployment, its pods and their adapters say, as one picture. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, Literal

from codetune_api.common import Failure, ModelPin
from codetune_api.contracts import ServerReport
from codetune_api.modeldeployment import AdapterState, ModelDeploymentStatus

from codetune_operator.reconcile import conditions
from codetune_operator.reconcile.modeldeployment.adapters import ResolvedAdapter
from codetune_operator.reconcile.modeldeployment.adapterstates import RANK_RAISED, adapter_states
from codetune_operator.reconcile.modeldeployment.pods import is_fetching
from codetune_operator.reconcile.observed import ModelDeploymentView
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
from codetune_operator.reconcile.workloads import newest_pods
from codetune_operator.resources.modeldeployment.names import CONTAINER, PORT, pod_selector
from codetune_operator.resources.models import hub_repository, pin_model
from codetune_operator.settings import Settings

ServingPhase = Literal["Pending", "Starting", "Ready", "Updating", "Stopped", "Failed"]

_WORDS = 300
_TOLD = 5
"""How many adapters that are not served a sentence tells of; all of them stand in `status.adapters`."""


@dataclass(frozen=True)
class Serving:
    """What was found out."""

    view: ModelDeploymentView
    resolved: Sequence[ResolvedAdapter]
    failure: Failure | None
    is_refused: bool = False
    """The spec asks for something impossible: the failure is about that, and nothing is changed."""

    @property
    def wanted(self) -> int:
        """Replicas that are asked for."""
        return self.view.modeldeployment.spec.replicas

    @property
    def lack(self) -> Failure | None:
        """That all its pods run and one of them has no key."""
        secret = self.view.modeldeployment.spec.api_keys_secret_ref
        keys = [report.api_keys for report in self.reports.values() if isinstance(report, ServerReport)]
        if 0 not in keys or not is_rolled_out(self.view.deployment, self.wanted):
            return None
        return lack_keys(secret.name if secret else "")

    def count(self, field: str) -> int:
        """A number of the Deployment's status."""
        return count(self.view.deployment, field)

    @cached_property
    def reports(self) -> Mapping[str, ServerReport | str]:
        """What those pods say that requests reach."""
        serving = {pod["metadata"]["name"] for pod in self.view.pods if _is_serving(pod)}
        return {name: report for name, report in self.view.server_reports.items() if name in serving}

    @cached_property
    def adapters(self) -> list[AdapterState]:
        """Each adapter's state."""
        return adapter_states(self.resolved, self.reports, replicas=self.wanted)

    @property
    def counted(self) -> list[AdapterState]:
        """States on which Ready depends: not those that a selector found and that can't be served yet, or at all."""
        waiting = {adapter.name for adapter in self.resolved if adapter.is_selected and adapter.desired is None}
        return [state for state in self.adapters if state.name not in waiting]


def build_serving_status(serving: Serving, settings: Settings, now: datetime) -> ModelDeploymentStatus:
    """The whole new status."""
    deployment = serving.view.modeldeployment
    name, namespace = deployment.metadata.name, deployment.metadata.namespace
    phase, wanted = _judge(serving)
    available = serving.count("availableReplicas")
    wanted = {**wanted, **say_available(available, serving.wanted)}
    before = deployment.status
    return ModelDeploymentStatus(
        phase=phase,
        observed_generation=deployment.metadata.generation,
        conditions=conditions.update(before.conditions, wanted, deployment.metadata.generation, now),
        endpoint=find_endpoint(name, namespace, deployment.spec.service.port, serving.view.service, settings),
        replicas=serving.count("replicas"),
        ready_replicas=serving.count("readyReplicas"),
        selector=",".join(f"{key}={value}" for key, value in sorted(pod_selector(deployment).items())),
        base_model=before.base_model or _pin_model(serving),
        models=_models(serving),
        adapters=serving.adapters,
        failure=serving.failure or serving.lack,
    )


def build_serving_events(before: ModelDeploymentStatus, after: ModelDeploymentStatus) -> tuple[EventSpec, ...]:
    """What a person would want to see of the change; nothing when the picture is the same."""
    events = build_failure_events(before.failure, after.failure)
    former = {state.name: state for state in before.adapters}
    for state in after.adapters:
        old = former.get(state.name)
        events.extend(_adapter_events(old, state))
    if before.phase != after.phase and after.phase in {"Ready", "Stopped"}:
        message = next((entry.message for entry in after.conditions if entry.type == "Ready"), "")
        events.append(EventSpec("Normal", after.phase, message))
    return tuple(events)


def _adapter_events(old: AdapterState | None, new: AdapterState) -> list[EventSpec]:
    if new.phase == "Ready" and (old is None or (old.phase, old.digest) != (new.phase, new.digest)):
        what = f"Adapter {new.name!r} is served" + (f" from {new.checkpoint}." if new.checkpoint else ".")
        return [EventSpec("Normal", "AdapterReady", what)]
    if new.phase in {"Failed", "Held"} and (old is None or old.reason != new.reason):
        return [EventSpec("Warning" if new.phase == "Failed" else "Normal", new.reason, new.message)]
    return []


def _judge(serving: Serving) -> tuple[ServingPhase, conditions.Wanted]:
    """Phase and conditions, the most pressing matter first."""
    failure, available = serving.failure, serving.count("availableReplicas")
    if failure is not None and (serving.is_refused or failure.reason == "UnsupportedModel"):
        return "Failed", conditions.stalled(failure.reason, failure.message)
    if serving.wanted == 0 and serving.count("replicas") == 0:
        return "Stopped", say_stopped()
    if failure is not None and is_stuck(failure, newest_pods(serving.view.pods), CONTAINER):
        return "Updating" if available else "Failed", conditions.stalled(failure.reason, failure.message)
    if not is_rolled_out(serving.view.deployment, serving.wanted):
        phase: ServingPhase = "Pending" if serving.view.deployment is None else "Updating" if available else "Starting"
        said = f"{available} of {serving.wanted} replicas answer requests; {_say_start(serving)}."
        said = " ".join([said, *_say_raised(serving)])
        reason, message = (failure.reason, failure.message) if failure else ("Rolling" if available else phase, said)
        return phase, conditions.reconciling(reason, message)
    if lack := serving.lack:
        return "Failed", conditions.stalled(lack.reason, f"{lack.message} {lack.hint}")
    return _judge_adapters(serving)


def _say_raised(serving: Serving) -> list[str]:
    """Why pods are replaced that work."""
    raised = [state for state in serving.adapters if state.reason == RANK_RAISED]
    return [f"Adapter {state.name!r}: {state.message}" for state in raised[:1]]


def _say_start(serving: Serving) -> str:
    """What the replicas that do not answer yet are at."""
    fetching = next((pod["metadata"]["name"] for pod in serving.view.pods if is_fetching(pod)), "")
    told = serving.view.report.stage_message
    return f"pod {fetching} fetches {told or 'the base model'}" if fetching else "the others are starting"


def _judge_adapters(serving: Serving) -> tuple[ServingPhase, conditions.Wanted]:
    counted = serving.counted
    failed = [state for state in counted if state.phase == "Failed"]
    if failed:
        others = f" ({len(failed) - 1} more like this)" if len(failed) > 1 else ""
        return "Failed", conditions.stalled(failed[0].reason, f"{failed[0].message}{others} The rest is served.")
    pending = [state for state in counted if state.phase == "Pending"]
    if pending:
        return "Updating", conditions.reconciling(pending[0].reason, f"{pending[0].message} The rest is served.")
    loading = [state.name for state in counted if state.phase == "Loading"]
    silent = next(((name, said) for name, said in serving.reports.items() if isinstance(said, str)), None)
    if loading and silent:
        pod, said = silent
        message = (
            f"Pod {pod} serves, and does not say which adapters: {said[:_WORDS]}. Let the operator reach port {PORT} "
            "of the pods (network policies, firewalls)."
        )
        return "Updating", conditions.reconciling("PodSilent", message)
    if loading:
        message = " ".join([f"Adapters are being loaded: {', '.join(loading)}.", *_say_raised(serving)])
        return "Updating", conditions.reconciling("AdaptersLoading", message)
    waiting = [state for state in serving.adapters if state.phase != "Ready"]
    served = len(serving.adapters) - len(waiting)
    message = f"{serving.wanted} replicas serve the base model and {served} adapters."
    return "Ready", conditions.ready("Serving", " ".join([message, *(state.message for state in waiting[:_TOLD])]))


def _pin_model(serving: Serving) -> ModelPin | None:
    """The commit of a hub model that the first pods came up with."""
    spec = serving.view.modeldeployment.spec
    commits = [report.model_commit for report in serving.reports.values() if isinstance(report, ServerReport)]
    commit = next((commit for commit in commits if commit), None)
    repository = hub_repository(spec.base_model)
    return pin_model(repository, commit) if commit and repository else None


def _models(serving: Serving) -> list[str]:
    """Names that answer on every pod that requests reach, the base model's first."""
    answers = [report.models for report in serving.reports.values() if isinstance(report, ServerReport)]
    if not answers or len(answers) < len(serving.reports):
        return []
    return [name for name in answers[0] if all(name in answer for answer in answers)]


def _is_serving(pod: Obj) -> bool:
    status: dict[str, Any] = pod.get("status", {})
    ready = any(entry["type"] == "Ready" and entry["status"] == "True" for entry in status.get("conditions", []))
    return ready and not pod["metadata"].get("deletionTimestamp")
