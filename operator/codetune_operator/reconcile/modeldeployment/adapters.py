"""Which adapters a ModelDeployment should hold, and which it can't hold yet or at all. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from codetune_api.artifacts import store_path
from codetune_api.contracts import DesiredAdapter, DesiredAdapters
from codetune_api.finetune import CheckpointStatus, FineTune
from codetune_api.modeldeployment import AdapterPhase, AdapterSpec, ModelDeploymentSpec

from codetune_operator.reconcile import conditions
from codetune_operator.reconcile.deletion import PURGING
from codetune_operator.reconcile.finetune.resuming import find_checkpoint
from codetune_operator.reconcile.modeldeployment.selecting import select_adapters
from codetune_operator.resources.models import canonical_model, default_model_name
from codetune_operator.settings import Settings

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
_FILE = "file:///"
_S3 = "s3://"
_UNKNOWN_RANK = 64
"""For an adapter by `uri`, which nobody but the server reads."""


@dataclass(frozen=True)
class ResolvedAdapter:
    """One adapter of the spec: either what to load, or why not."""

    name: str
    rank: int
    """What the server must allow for it."""
    fine_tune: str = ""
    """The FineTune that it comes from."""
    is_selected: bool = False
    """Found by its labels: what can't be served of those is told, and nothing waits for it."""
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


def resolve_adapters(
    spec: ModelDeploymentSpec, finetunes: Mapping[str, FineTune], settings: Settings
) -> tuple[ResolvedAdapter, ...]:
    """Every adapter of the spec in its order, then those that the selector finds.

    Args:
        spec: What to serve.
        finetunes: FineTunes of the namespace by name; those that do not exist are missing.
        settings: The operator's settings: what a URI means.
    """
    named = (_resolve(spec, adapter, finetunes, settings) for adapter in spec.adapters)
    chosen = select_adapters(spec, finetunes)
    found = (replace(_resolve(spec, adapter, finetunes, settings), is_selected=True) for adapter in chosen)
    return (*named, *found)


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


def _resolve(
    spec: ModelDeploymentSpec, adapter: AdapterSpec, finetunes: Mapping[str, FineTune], settings: Settings
) -> ResolvedAdapter:
    name = adapter.fine_tune_ref.name if adapter.fine_tune_ref else ""
    finetune = finetunes.get(name)
    rank = _UNKNOWN_RANK if adapter.fine_tune_ref is None else _rank(finetune)
    try:
        _check_name(spec, adapter)
        if adapter.fine_tune_ref is None:
            return ResolvedAdapter(name=adapter.name, rank=rank, desired=_by_uri(adapter, settings))
        checkpoint = _choose(spec, adapter, adapter.fine_tune_ref.name, finetune)
        path = _find_path(checkpoint, settings)
    except _Blocked as blocked:
        # An adapter that can never be served must not decide how the server starts.
        rank = SMALLEST_RANK if blocked.reason in PERMANENT_REASONS else rank
        return ResolvedAdapter(
            name=adapter.name,
            rank=rank,
            fine_tune=name,
            phase=blocked.phase,
            reason=blocked.reason,
            message=blocked.message,
        )
    return ResolvedAdapter(
        name=adapter.name,
        rank=rank,
        fine_tune=name,
        checkpoint=checkpoint.name,
        message=_say_failure(finetune),
        desired=DesiredAdapter(name=adapter.name, digest=checkpoint.digest, path=path),
    )


def _check_name(spec: ModelDeploymentSpec, adapter: AdapterSpec) -> None:
    base = spec.served_model_name or default_model_name(spec.base_model)
    if adapter.name == base:
        message = f"Adapter {adapter.name!r} has the base model's own name: give one of them another name."
        raise _Blocked("Failed", "AdapterUnsupported", message)


def _find_path(checkpoint: CheckpointStatus, settings: Settings) -> str:
    """Where in the store a checkpoint lies. Raises: _Blocked."""
    path = store_path(checkpoint.uri, settings.store.uri)
    if path is None:
        message = (
            f"Checkpoint {checkpoint.name} lies at {checkpoint.uri}, and the artifact store is now "
            f"{settings.store.uri}: copy it there and serve it by uri, or train again."
        )
        raise _Blocked("Failed", "AdapterUnsupported", message)
    return path


def _by_uri(adapter: AdapterSpec, settings: Settings) -> DesiredAdapter:
    """An adapter from elsewhere. Raises: _Blocked."""
    uri = adapter.uri or ""
    root, path = _read_uri(uri, settings)
    if not path or ".." in path.split("/"):
        message = (
            f"uri {uri!r} is not in the namespace's artifact store: copy the adapter there and write "
            f"{settings.store.uri}/PATH."
        )
        raise _Blocked("Failed", "AdapterUnsupported", message)
    return DesiredAdapter(name=adapter.name, digest=adapter.digest, path=path.strip("/"), root=root)


def _read_uri(uri: str, settings: Settings) -> tuple[Literal["Files", "S3"] | None, str | None]:
    """What a path is relative to, and the path; none where the URI means nothing here. Raises: _Blocked."""
    if uri.startswith(_S3):
        if settings.s3 is None:
            message = (
                f"uri {uri!r} is in a bucket, and this operator has no `s3` in its settings: set it, or copy the "
                f"adapter into the artifact store and write {settings.store.uri}/PATH."
            )
            raise _Blocked("Failed", "AdapterUnsupported", message)
        return "S3", uri.removeprefix(_S3)
    if not uri.startswith(_FILE):
        return None, store_path(uri, settings.store.uri)
    if settings.file_root is None:
        message = (
            f"uri {uri!r} is a file URI, and this operator has no `fileRoot`: only a local cluster has. Copy the "
            f"adapter into the artifact store and write {settings.store.uri}/PATH."
        )
        raise _Blocked("Failed", "AdapterUnsupported", message)
    return "Files", uri.removeprefix(_FILE)


def _choose(spec: ModelDeploymentSpec, adapter: AdapterSpec, name: str, finetune: FineTune | None) -> CheckpointStatus:
    """The checkpoint to serve. Raises: _Blocked."""
    if finetune is None:
        message = f"FineTune {name!r} does not exist in this namespace: create it, or correct fineTuneRef.name."
        raise _Blocked("Pending", "AdapterPending", message)
    if finetune.metadata.deletion_timestamp and _is_purged(finetune):
        message = f"FineTune {name!r} is being deleted with its artifacts: refer to another one, or remove it here."
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


def _is_purged(finetune: FineTune) -> bool:
    """Whether its artifacts are going by now; until then it is served, and its finalizer waits for that to end."""
    told = conditions.find(finetune.status.conditions, "Ready")
    return told is not None and told.reason == PURGING


def _find_checkpoint(wanted: str, finetune: FineTune) -> CheckpointStatus:
    """The one that is meant now: best and latest move while the run goes on. Raises: _Blocked."""
    status, name = finetune.status, finetune.metadata.name
    found = find_checkpoint(finetune, wanted)
    if found is not None:
        return found
    if status.phase != "Succeeded" and (status.phase != "Failed" or wanted == "best"):
        raise _unfinished(finetune, f"it has no checkpoint {wanted!r} yet")
    have = ", ".join(entry.name for entry in status.checkpoints) or "none"
    message = f"FineTune {name!r} has no checkpoint {wanted!r}; it kept: {have}. Choose one of those, best or latest."
    raise _Blocked("Failed", "AdapterNotFound", message)


def _say_failure(finetune: FineTune | None) -> str:
    """That a run failed whose checkpoint is served all the same."""
    if finetune is None or finetune.status.phase != "Failed" or finetune.status.failure is None:
        return ""
    return f"FineTune {finetune.metadata.name!r} failed ({finetune.status.failure.reason}); what it kept is served."


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
