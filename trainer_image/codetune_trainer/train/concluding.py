"""Scores of the base before the first step and of the best checkpoint after the last, and the run's result."""

import time

from codetune_api.artifacts import checkpoint_name
from codetune_api.contracts import TrainResult
from codetune_api.finetune import Evaluation, EvaluationScores

from codetune_trainer.train import checkpoints, evaluating, milestones
from codetune_trainer.train.charting import build_chart
from codetune_trainer.train.running import Run


def score_base(run: Run) -> EvaluationScores | None:
    """Scores of the base model, measured once: before step 1, with the adapter off. Raises: Stopped."""
    if run.held_out is None:
        return None
    state = run.state
    if state.base_loss is None:
        run.reporter.stage("Baseline", f"Measuring the base model on {run.held_out.tokens} held-out tokens")
        began = time.monotonic()
        with run.model.disable_adapter():
            state.base_loss = milestones.measure(run)
            measured = time.monotonic()
            state.base_exact = evaluating.exact_match(run.model, run.encoder, run.held_out, run.breathe)
        run.pace.note_checkpoint(measured - began)
        run.pace.note_end(time.monotonic() - measured)
    return EvaluationScores(loss=state.base_loss or 0.0, exact_match=state.base_exact)


def conclude(run: Run, base: EvaluationScores | None) -> TrainResult:
    """Score the best checkpoint against the base and gather what the run found out. Raises: Stopped."""
    latest = run.saved[-1].name
    best = run.state.best_checkpoint or latest
    return TrainResult(
        steps=run.state.step,
        tokens=run.state.tokens,
        best_checkpoint=best,
        latest_checkpoint=latest,
        evaluation=_evaluate(run, base, best),
        parameters=run.parameters,
        checkpoints=run.saved,
        loss_history=build_chart(run.state.history),
    )


def _evaluate(run: Run, base: EvaluationScores | None, best: str) -> Evaluation | None:
    if run.held_out is None or base is None:
        return None
    run.reporter.stage("Evaluating", f"Scoring {best} against the base model")
    if best != checkpoint_name(run.state.step):
        checkpoints.load_adapter(run.checkpoints / best, run.model)
    loss = run.state.best_loss if run.state.best_loss is not None else milestones.measure(run)
    exact = evaluating.exact_match(run.model, run.encoder, run.held_out, run.breathe)
    return evaluating.compare(base, EvaluationScores(loss=loss or 0.0, exact_match=exact), run.held_out)
