"""Where a run starts that goes on from another FineTune's adapter: which checkpoint, or what it waits for. Pure.

The checkpoint is chosen once and pinned in status; from then on the other FineTune's artifacts stay until this run is
over. The trainer takes the adapter over into the run's own folder, so nothing that happens to the other one later
changes this run.
"""

import re
from collections.abc import Iterable

from codetune_api.common import Failure
from codetune_api.finetune import CheckpointStatus, FineTune, ResumedFrom

from codetune_operator.reconcile.finetune.status import Decision
from codetune_operator.reconcile.plan import Obj
from codetune_operator.resources.models import canonical_model

_CHECKPOINT = re.compile(r"best|latest|step-[0-9]{1,9}")
_OVER = frozenset({"Succeeded", "Failed"})


def find_start(finetune: FineTune, other: FineTune | None) -> ResumedFrom | Decision | None:
    """What a run starts from: the pinned checkpoint, nothing, or a decision that says why it can't start.

    Args:
        finetune: The run.
        other: The FineTune that `resumeFrom` names, when it exists.
    """
    wanted = finetune.spec.resume_from
    if wanted is None or finetune.status.resumed_from is not None:
        return finetune.status.resumed_from
    name = wanted.fine_tune_ref.name
    if other is None or other.metadata.deletion_timestamp:
        why = "does not exist in this namespace: create it" if other is None else "is being deleted: make it anew"
        return _wait("FineTuneMissing", f"FineTune {name!r}, which this run resumes from, {why}.")
    if not is_same_base(finetune.spec.base_model, other):
        text = f"FineTune {name!r} was made for base model {other.spec.base_model}, not for {finetune.spec.base_model}."
        return _refuse(text, "Make a new FineTune with the same baseModel, or without resumeFrom.")
    if other.status.phase not in _OVER:
        text = f"FineTune {name!r} is {other.status.phase or 'Pending'}; this run starts from it when it has finished."
        return _wait("FineTuneNotReady", text)
    found = find_checkpoint(other, wanted.checkpoint)
    if found is None:
        return _explain_missing(other, wanted.checkpoint)
    return ResumedFrom(
        fine_tune=name, checkpoint=found.name, uri=found.uri, digest=found.digest, base_model=other.status.base_model
    )


def find_checkpoint(finetune: FineTune, wanted: str) -> CheckpointStatus | None:
    """The checkpoint that `best`, `latest` or `step-N` means now."""
    status = finetune.status
    if wanted in {"best", "latest"}:
        label = status.best_checkpoint if wanted == "best" else status.latest_checkpoint
        return next((entry for entry in status.checkpoints if entry.name == label), None)
    step = int(wanted.removeprefix("step-"))
    return next((entry for entry in status.checkpoints if entry.step == step), None)


def is_checkpoint(wanted: str) -> bool:
    """Whether this is `best`, `latest` or `step-N`."""
    return _CHECKPOINT.fullmatch(wanted) is not None


def is_same_base(uri: str, other: FineTune) -> bool:
    """Whether a base model is that of another run, by its name or by the commit that it was pinned to."""
    pinned = other.status.base_model
    return canonical_model(uri) in {canonical_model(other.spec.base_model), pinned.uri if pinned else ""}


def find_resuming(finetune: str, finetunes: Iterable[Obj]) -> tuple[str, ...]:
    """Names of the runs that are not over and have started from a FineTune; objects as the API server holds them."""
    return tuple(
        str(other["metadata"]["name"])
        for other in finetunes
        if ((other.get("status") or {}).get("resumedFrom") or {}).get("fineTune") == finetune
        and (other.get("status") or {}).get("phase") not in _OVER
        and not other["metadata"].get("deletionTimestamp")
    )


def _explain_missing(other: FineTune, wanted: str) -> Decision:
    name, status = other.metadata.name, other.status
    kept = ", ".join(entry.name for entry in status.checkpoints)
    if kept:
        text = f"FineTune {name!r} has no checkpoint {wanted!r}; it kept: {kept}."
        return _refuse(text, "Make a new FineTune that resumes from one of those, from best or from latest.")
    told = f" ({status.failure.reason}: {status.failure.message.rstrip('.')})" if status.failure else ""
    return _wait("FineTuneNotReady", f"FineTune {name!r} failed{told} and kept no checkpoint: mend it."[:2000])


def _wait(reason: str, message: str) -> Decision:
    return Decision("WaitingForData", reason, message)


def _refuse(message: str, hint: str) -> Decision:
    failure = Failure(reason="IncompatibleCheckpoint", message=message, hint=hint)
    return Decision("Failed", failure.reason, f"{message} {hint}", failure=failure)
