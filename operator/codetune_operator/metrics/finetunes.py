"""What FineTunes tell besides what every resource does. Pure."""

from codetune_operator.metrics.families import RESOURCE, Family
from codetune_operator.metrics.series import Obj, Series, Values, find, measure


def _read_speed(obj: Obj) -> Values:
    """Only of a run that is at work: the last speed of one that ended is no speed."""
    speed = find(obj, "status", "progress", "tokensPerSecond")
    return [((), float(speed))] if speed is not None and find(obj, "status", "phase") == "Running" else []


def _read_checkpoints(obj: Obj) -> Values:
    status = obj.get("status") or {}
    steps = {entry["name"]: entry["step"] for entry in status.get("checkpoints") or ()}
    for which in ("best", "latest"):
        step = steps.get(status.get(f"{which}Checkpoint"))
        if step is not None:
            yield (which,), float(step)


FINETUNES = (
    measure(
        "codetune_finetune_progress_ratio",
        *("status", "progress", "percent"),
        scale=0.01,
        help="Share of the steps that are done, 0 to 1.",
    ),
    measure(
        "codetune_finetune_loss",
        *("status", "progress", "loss"),
        help="Training loss of the last steps, in nats per token.",
    ),
    measure(
        "codetune_finetune_holdout_loss",
        *("status", "progress", "holdoutLoss"),
        help="Loss on the held-out files at the last checkpoint, in nats per token.",
    ),
    Series(
        Family(
            "codetune_finetune_tokens_per_second", "gauge", RESOURCE, "Speed of the training, while the run is Running."
        ),
        _read_speed,
    ),
    Series(
        Family(
            "codetune_finetune_checkpoint_step",
            "gauge",
            (*RESOURCE, "checkpoint"),
            "Step of the best and of the latest checkpoint.",
        ),
        _read_checkpoints,
    ),
    measure(
        "codetune_finetune_evaluation_improvement_ratio",
        *("status", "evaluation", "improvement"),
        help="(base loss - tuned loss) / base loss on held-out code; 0.05 is 5 % better, negative is worse.",
    ),
    measure(
        "codetune_finetune_restarts_total",
        *("status", "restarts"),
        type="counter",
        help="Attempts that died and were followed by another.",
    ),
)
