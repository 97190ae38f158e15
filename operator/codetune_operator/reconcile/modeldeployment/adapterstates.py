"""What the pods of a ModelDeployment say about its adapters. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from codetune_api.contracts import AdapterReport, DesiredAdapter, DesiredAdapters, ServerReport
from codetune_api.modeldeployment import AdapterState

from codetune_operator.reconcile.modeldeployment.adapters import ALLOWED_RANKS, ResolvedAdapter

RANK_RAISED = "RankRaised"
"""Reason of an adapter that waits for pods with a higher --max-lora-rank."""


def learn_ranks(
    resolved: Sequence[ResolvedAdapter], reports: Mapping[str, ServerReport | str]
) -> tuple[ResolvedAdapter, ...]:
    """The adapters, with the ranks that pods found too high: those of an adapter by `uri` only they can read."""
    answers = [report for report in reports.values() if isinstance(report, ServerReport)]
    told = {
        entry.name: entry.rank
        for answer in answers
        for entry in answer.adapters
        if entry.rank is not None and entry.rank <= ALLOWED_RANKS[-1]
    }
    return tuple(replace(each, rank=max(each.rank, told.get(each.name, 0))) for each in resolved)


def adapter_states(
    resolved: Sequence[ResolvedAdapter], reports: Mapping[str, ServerReport | str], *, replicas: int
) -> list[AdapterState]:
    """Each adapter as its pods report it.

    Args:
        resolved: The adapters.
        reports: Pod name → its last report, or why there is none.
        replicas: How many pods are asked for.
    """
    answers = [report for report in reports.values() if isinstance(report, ServerReport)]
    return [_state(adapter, answers, replicas) for adapter in resolved]


def is_settled(report: ServerReport | str | None, desired: DesiredAdapters) -> bool:
    """Whether a pod was told this very set: then there is no need to tell it again."""
    if not isinstance(report, ServerReport):
        return False
    told = {entry.name: entry.desired_digest for entry in report.adapters}
    return report.ready and told == {adapter.name: adapter.digest for adapter in desired.adapters}


def _state(adapter: ResolvedAdapter, answers: Sequence[ServerReport], replicas: int) -> AdapterState:
    if adapter.desired is None:
        return AdapterState(
            name=adapter.name,
            fine_tune=adapter.fine_tune,
            checkpoint=adapter.checkpoint,
            phase=adapter.phase,
            reason=adapter.reason,
            message=adapter.message,
        )
    own = [entry for answer in answers for entry in answer.adapters if entry.name == adapter.name]
    ready = sum(1 for entry in own if _is_served(entry, adapter.desired))
    failed = next((entry for entry in own if _is_refused(entry, adapter.desired)), None)
    state = AdapterState(
        name=adapter.name,
        fine_tune=adapter.fine_tune,
        checkpoint=adapter.checkpoint,
        message=adapter.message,
        digest=adapter.desired.digest,
        phase="Ready" if 0 < replicas <= ready else "Loading",
        ready_replicas=ready,
    )
    if failed is not None and failed.rank is not None and failed.rank <= ALLOWED_RANKS[-1]:
        message = (
            f"It has rank {failed.rank}, more than the running pods were started for: they are replaced one after the "
            "other, each once its successor is ready."
        )
        return state.model_copy(update={"phase": "Loading", "reason": RANK_RAISED, "message": message})
    if failed is not None:
        return state.model_copy(
            update={"phase": "Failed", "reason": failed.reason or "LoadFailed", "message": failed.message[:2000]}
        )
    if replicas == 0:
        return state.model_copy(update={"phase": "Pending", "message": "It is loaded when a replica runs."})
    return state


def _is_served(entry: AdapterReport, desired: DesiredAdapter) -> bool:
    return entry.phase == "Ready" and (desired.digest is None or entry.digest == desired.digest)


def _is_refused(entry: AdapterReport, desired: DesiredAdapter) -> bool:
    return entry.phase == "Failed" and entry.desired_digest in {None, desired.digest}
