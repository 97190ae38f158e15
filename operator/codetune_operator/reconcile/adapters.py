"""Which adapters a ModelDeployment should hold, which it can't hold yet or at all, and what its pods say. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from codetune_api.artifacts import store_path
from codetune_api.contracts import AdapterReport, DesiredAdapter, DesiredAdapters, ServerReport
from codetune_api.finetune import CheckpointStatus, FineTune
from codetune_api.modeldeployment import AdapterPhase, AdapterSpec, AdapterState, ModelDeploymentSpec

from codetune_operator.resources.models import canonical_model, default_model_name

AdapterReason = Literal[
    "AdapterPending",
    "AdapterIncompatible",
    "AdapterFailed",
    "AdapterHeld",
    "AdapterNotFound",
    "AdapterUnsupported",
]
PERMANENT_REASONS: frozenset[str] = frozenset(
    {"AdapterIncompatible", "AdapterFailed", "AdapterNotFound", "AdapterUnsupported"}
)
"""Someone has to edit a resource; waiting does not help."""

ALLOWED_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM takes as --max-lora-rank."""
SMALLEST_RANK = 16
_PRESET_RANKS = {"Smaller": 16, "Standard": 32, "Embeddings": 64, "Auto": 64}
"""Largest rank that a run can get as long as it has not said which: so that its end does not roll the pods."""
_UNKNOWN_RANK = 64
"""For an adapter by `uri`, which nobody but the server reads."""


@dataclass(frozen=True)
class ResolvedAdapter:
    """One adapter of the spec: either what to load, or why not."""

    name: str
    rank: int
    """What the server must allow for it."""
    checkpoint: str = ""
    desired: DesiredAdapter | None = None
    phase: AdapterPhase = "Loading"
    reason: AdapterReason | Literal[""] = ""
    message: str = ""


class _Blocked(Exception):
    """An adapter that cannot be served now."""

    def __init__(self, phase: AdapterPhase, reason: AdapterReason, message: str) -> None:
        super().__init__(message)
        self.phase, self.reason, self.message = phase, reason, message


def resolve_adapters(spec: ModelDeploymentSpec, finetunes: Mapping[str, FineTune]) -> tuple[ResolvedAdapter, ...]:
    """Every adapter of the spec, in its order.

    Args:
        spec: What to serve.
        finetunes: FineTunes of the namespace by name; those that do not exist are missing.
    """
    return tuple(_resolve(spec, adapter, finetunes) for adapter in spec.adapters)


def desired_set(resolved: Sequence[ResolvedAdapter]) -> DesiredAdapters:
    """What every pod should hold: the adapters that can be served now."""
    return DesiredAdapters(adapters=[adapter.desired for adapter in resolved if adapter.desired is not None])


def max_lora_rank(resolved: Sequence[ResolvedAdapter], *, current: int = 0) -> int:
    """The server's --max-lora-rank: the smallest allowed one for all adapters.

    Args:
        resolved: The adapters.
        current: What the running Deployment has; it never shrinks, because removing an adapter must not roll pods.
    """
    needed = max([SMALLEST_RANK, current, *(adapter.rank for adapter in resolved)])
    return next((rank for rank in ALLOWED_RANKS if rank >= needed), ALLOWED_RANKS[-1])


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
        checkpoint=adapter.checkpoint,
        digest=adapter.desired.digest,
        phase="Ready" if 0 < replicas <= ready else "Loading",
        ready_replicas=ready,
    )
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


def _resolve(spec: ModelDeploymentSpec, adapter: AdapterSpec, finetunes: Mapping[str, FineTune]) -> ResolvedAdapter:
    finetune = finetunes.get(adapter.fine_tune_ref.name) if adapter.fine_tune_ref else None
    rank = _UNKNOWN_RANK if adapter.fine_tune_ref is None else _rank(finetune)
    try:
        _check_name(spec, adapter)
        if adapter.fine_tune_ref is None:
            return ResolvedAdapter(name=adapter.name, rank=rank, desired=_by_uri(adapter))
        checkpoint = _choose(spec, adapter, adapter.fine_tune_ref.name, finetune)
    except _Blocked as blocked:
        # An adapter that can never be served must not decide how the server starts.
        rank = SMALLEST_RANK if blocked.reason in PERMANENT_REASONS else rank
        return ResolvedAdapter(
            name=adapter.name, rank=rank, phase=blocked.phase, reason=blocked.reason, message=blocked.message
        )
    path = store_path(checkpoint.uri)
    return ResolvedAdapter(
        name=adapter.name,
        rank=rank,
        checkpoint=checkpoint.name,
        desired=DesiredAdapter(name=adapter.name, digest=checkpoint.digest, path=path or checkpoint.uri),
    )


def _check_name(spec: ModelDeploymentSpec, adapter: AdapterSpec) -> None:
    base = spec.served_model_name or default_model_name(spec.base_model)
    if adapter.name == base:
        message = f"Adapter {adapter.name!r} has the base model's own name: give one of them another name."
        raise _Blocked("Failed", "AdapterUnsupported", message)


def _by_uri(adapter: AdapterSpec) -> DesiredAdapter:
    path = store_path(adapter.uri or "")
    if not path or ".." in path.split("/"):
        message = (
            f"uri {adapter.uri!r} is not in the namespace's artifact store: copy the adapter there and write "
            "pvc://codetune-artifacts/PATH."
        )
        raise _Blocked("Failed", "AdapterUnsupported", message)
    return DesiredAdapter(name=adapter.name, digest=adapter.digest, path=path.strip("/"))


def _choose(spec: ModelDeploymentSpec, adapter: AdapterSpec, name: str, finetune: FineTune | None) -> CheckpointStatus:
    """The checkpoint to serve. Raises: _Blocked."""
    if finetune is None:
        message = f"FineTune {name!r} does not exist in this namespace: create it, or correct fineTuneRef.name."
        raise _Blocked("Pending", "AdapterPending", message)
    if finetune.metadata.deletion_timestamp:
        message = f"FineTune {name!r} is being deleted: refer to another one, or remove the adapter."
        raise _Blocked("Pending", "AdapterPending", message)
    if canonical_model(finetune.spec.base_model) != canonical_model(spec.base_model):
        message = (
            f"FineTune {name!r} was made for base model {finetune.spec.base_model}, but this deployment serves "
            f"{spec.base_model}: serve it from a ModelDeployment of its own base model."
        )
        raise _Blocked("Failed", "AdapterIncompatible", message)
    checkpoint = _find_checkpoint(adapter.checkpoint or "best", finetune)
    _check_improvement(adapter, finetune)
    return checkpoint


def _find_checkpoint(wanted: str, finetune: FineTune) -> CheckpointStatus:
    status, name = finetune.status, finetune.metadata.name
    if wanted == "best" and status.phase != "Succeeded":
        raise _unfinished(finetune, "its best checkpoint is known when it has finished")
    if wanted in {"best", "latest"}:
        label = status.best_checkpoint if wanted == "best" else status.latest_checkpoint
        found = next((entry for entry in status.checkpoints if entry.name == label), None)
    else:
        step = int(wanted.removeprefix("step-"))
        found = next((entry for entry in status.checkpoints if entry.step == step), None)
    if found is not None:
        return found
    if status.phase not in {"Succeeded", "Failed"}:
        raise _unfinished(finetune, f"it has no checkpoint {wanted!r} yet")
    have = ", ".join(entry.name for entry in status.checkpoints) or "none"
    message = f"FineTune {name!r} has no checkpoint {wanted!r}; it kept: {have}. Choose one of those, best or latest."
    raise _Blocked("Failed", "AdapterNotFound", message)


def _unfinished(finetune: FineTune, why: str) -> _Blocked:
    status, name = finetune.status, finetune.metadata.name
    if status.phase != "Failed":
        return _Blocked("Pending", "AdapterPending", f"FineTune {name!r} is {status.phase or 'Pending'}: {why}.")
    failure = status.failure
    told = f" ({failure.reason}: {failure.message.rstrip('.')})" if failure else ""
    kept = ", ".join(entry.name for entry in status.checkpoints)
    cure = f"or choose one of its checkpoints ({kept})" if kept else "or remove the adapter"
    return _Blocked("Failed", "AdapterFailed", f"FineTune {name!r} failed{told}: mend it, {cure}."[:2000])


def _check_improvement(adapter: AdapterSpec, finetune: FineTune) -> None:
    if adapter.min_improvement is None:
        return
    name, evaluation = finetune.metadata.name, finetune.status.evaluation
    if evaluation is None and finetune.status.phase == "Succeeded":
        message = (
            f"FineTune {name!r} was not evaluated, because its project holds no file out: set holdout.fraction of the "
            "project and train again, or remove minImprovement."
        )
        raise _Blocked("Held", "AdapterHeld", message)
    if evaluation is None:
        raise _unfinished(finetune, "its improvement is known when it has finished")
    if evaluation.improvement < adapter.min_improvement:
        message = (
            f"FineTune {name!r} is {evaluation.improvement:.2%} better than its base on held-out code, and "
            f"minImprovement asks for {adapter.min_improvement:.2%}: train on more code or longer, or lower it."
        )
        raise _Blocked("Held", "AdapterHeld", message)


def _rank(finetune: FineTune | None) -> int:
    if finetune is None:
        return SMALLEST_RANK
    if finetune.status.adapter is not None:
        return finetune.status.adapter.rank
    if finetune.status.parameters is not None:
        return finetune.status.parameters.rank
    return finetune.spec.lora.rank or _PRESET_RANKS[finetune.spec.preset]
