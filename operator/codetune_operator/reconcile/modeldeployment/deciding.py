"""ModelDeployment: from what was observed to what to do now. Pure: no client, no clock, no environment.

Ready means that everything that was asked for is served by every replica. An adapter that cannot be served makes the
ModelDeployment not Ready, with that adapter's reason, while the base model and the other adapters go on serving; the
condition Available tells whether anything is served. An adapter that its own `minImprovement` holds back is as asked.
"""

from dataclasses import replace
from datetime import datetime

from codetune_api.common import Failure
from codetune_api.contracts import DesiredAdapters
from codetune_api.engine import find_owned_argument
from codetune_api.modeldeployment import ModelDeployment

from codetune_operator.reconcile.failures import classify
from codetune_operator.reconcile.modeldeployment.adapters import (
    ResolvedAdapter,
    desired_set,
    max_lora_rank,
    resolve_adapters,
)
from codetune_operator.reconcile.modeldeployment.adapterstates import is_settled, learn_ranks
from codetune_operator.reconcile.modeldeployment.pods import base_url, can_answer, is_fetching
from codetune_operator.reconcile.modeldeployment.status import Serving, build_serving_events, build_serving_status
from codetune_operator.reconcile.observed import ModelDeploymentView
from codetune_operator.reconcile.plan import AdapterPush, EventSpec, Follow, Obj, Plan
from codetune_operator.reconcile.shedding import find_unwanted
from codetune_operator.reconcile.unbound import explain_unbound
from codetune_operator.reconcile.workloads import newest_pods
from codetune_operator.resources.claims import build_missing_claim
from codetune_operator.resources.modeldeployment.names import adapter_token
from codetune_operator.resources.modeldeployment.pod import rank_of
from codetune_operator.resources.modeldeployment.serving import build_serving, fetch_nonce
from codetune_operator.resources.models import FETCH_CONTAINER, ModelSource, locate_model
from codetune_operator.settings import Settings

LOOK_AGAIN_SECONDS = 60.0
"""When pods are asked again while nothing else happens."""
SETTLE_SECONDS = 5.0
"""When pods are asked again that have not settled yet."""


def reconcile(view: ModelDeploymentView, settings: Settings, now: datetime) -> Plan:
    """What to do about a ModelDeployment now."""
    deployment = view.modeldeployment
    if deployment.metadata.deletion_timestamp:
        # Nothing of it lies in the store, and its children go with it.
        return Plan()
    model = locate_model(deployment.spec.base_model, settings)
    found = resolve_adapters(deployment.spec, view.finetunes, settings)
    resolved = learn_ranks(found, view.server_reports)
    refusal = model if isinstance(model, Failure) else _refuse_arguments(deployment)
    unbound, _ = explain_unbound(view.claim, view.pods, now)
    failure = refusal or unbound or classify(newest_pods(view.pods), owner=view.deployment, nodes=view.nodes)
    status = build_serving_status(Serving(view, resolved, failure, is_refused=refusal is not None), settings, now)
    events = build_serving_events(deployment.status, status)
    if isinstance(model, Failure) or refusal is not None:
        # What runs goes on as it is.
        return Plan(status=status, events=events)
    rank = max_lora_rank(resolved, current=rank_of(view.deployment))
    push = _push(view, desired_set(resolved))
    children = _children(view, model, resolved, settings, rank)
    return Plan(
        status=status,
        apply=children,
        delete=find_unwanted(view.policies, children),
        follow=_follow(view),
        push=push,
        events=(*_rank_event(view, resolved, rank), *events),
        requeue_after=SETTLE_SECONDS if push else LOOK_AGAIN_SECONDS,
    )


def _children(
    view: ModelDeploymentView,
    model: ModelSource,
    resolved: tuple[ResolvedAdapter, ...],
    settings: Settings,
    rank: int,
) -> tuple[Obj, ...]:
    deployment = view.modeldeployment
    claim = build_missing_claim(view.claim, deployment.metadata.namespace, settings)
    serving = build_serving(
        deployment,
        desired_set(resolved),
        _pin(view, model, resolved),
        settings,
        operator_key=view.operator_key,
        max_rank=rank,
        answers=any(can_answer(pod) for pod in view.pods),
    )
    return (*claim, *serving)


def _pin(view: ModelDeploymentView, model: ModelSource, resolved: tuple[ResolvedAdapter, ...]) -> ModelSource:
    """A hub model at the commit that its pods have; before there are any, at that which its adapters were made on."""
    if model.hub is None:
        return model
    served = [view.finetunes[adapter.fine_tune] for adapter in resolved if adapter.fine_tune and adapter.desired]
    trained = next((finetune.status.base_model for finetune in served if finetune.status.base_model), None)
    pinned = view.modeldeployment.status.base_model or trained
    return replace(model, origin=replace(model.hub, revision=pinned.commit)) if pinned is not None else model


def _refuse_arguments(deployment: ModelDeployment) -> Failure | None:
    """An argument that the spec may not give; the CRD refuses it too, but for shortened names."""
    found = find_owned_argument(deployment.spec.engine.extra_args)
    if found is None:
        return None
    argument, cure = found
    return Failure(
        reason="InvalidParameters",
        message=f"engine.extraArgs has {argument!r}, which is not its to give.",
        hint=f"Remove it from engine.extraArgs; {cure}.",
    )


def _follow(view: ModelDeploymentView) -> tuple[Follow, ...]:
    """The log of a pod that fetches the base model; where several do, they wait for one of them."""
    nonce = fetch_nonce(view.modeldeployment)
    return tuple(Follow(pod["metadata"]["name"], FETCH_CONTAINER, nonce) for pod in view.pods if is_fetching(pod))[:1]


def _push(view: ModelDeploymentView, desired: DesiredAdapters) -> AdapterPush | None:
    """The set, to every pod that can be spoken to and was not yet told it, or has not said how it went."""
    pods = {
        pod["metadata"]["name"]: base_url(pod)
        for pod in view.pods
        if can_answer(pod) and not is_settled(view.server_reports.get(pod["metadata"]["name"]), desired)
    }
    token = adapter_token(view.operator_key, view.modeldeployment)
    return AdapterPush(pods=pods, adapters=desired, token=token) if pods else None


def _rank_event(view: ModelDeploymentView, resolved: tuple[ResolvedAdapter, ...], rank: int) -> tuple[EventSpec, ...]:
    before = rank_of(view.deployment)
    if not before or before == rank:
        return ()
    names = ", ".join(repr(adapter.name) for adapter in resolved if adapter.rank > before)
    message = (
        f"Adapter {names} needs --max-lora-rank {rank}, the pods have {before}: they are replaced one after the "
        "other, each once its successor is ready."
    )
    return (EventSpec("Normal", "MaxLoraRankRaised", message),)
