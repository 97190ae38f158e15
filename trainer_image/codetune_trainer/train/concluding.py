"""Scores of the base before the first step and of the best checkpoint after the last, and the run's result."""

import time
from contextlib import nullcontext
from dataclasses import asdict

from codetune_api.artifacts import checkpoint_name
from codetune_api.contracts import TrainResult
from codetune_api.finetune import Evaluation

from codetune_trainer.train import checkpoints, milestones, storing
from codetune_trainer.train.charting import build_chart
from codetune_trainer.train.names import ANSWERS, BASELINE
from codetune_trainer.train.running import Run
from codetune_trainer.train.scoring import baselines, evaluating
from codetune_trainer.train.scoring.answering import answer_lines, answer_middles
from codetune_trainer.train.scoring.baselines import Baseline
from codetune_trainer.train.scoring.evaluating import HeldOut
from codetune_trainer.train.scoring.judging import Scored, compare

_FEW = 4
"""Lines that tell how long an answer takes."""


def score_base(run: Run) -> Baseline | None:
    """Scores of the base model, measured once and kept in the run's folder: the adapter is off. Raises: Stopped."""
    if run.samples is None:
        return None
    held_out = run.samples.judging
    found = baselines.load(run.folder, held_out.digest())
    if run.group.agree(found is None) or found is None:
        asked = f"{held_out.tokens} held-out tokens, {len(held_out.lines)} lines, {len(held_out.middles)} middles"
        run.reporter.stage("Baseline", f"Measuring the base model on {asked}")
        with run.model.disable_adapter():
            began = time.monotonic()
            loss = milestones.measure_on(run, held_out)
            measured = time.monotonic()
            scored = _score(run, held_out, loss)
            answered = time.monotonic()
        slowdown = _measure_slowdown(run, held_out)
        share = run.samples.choosing.tokens / held_out.tokens
        found = Baseline(scored, (measured - began) * share, (answered - measured) * slowdown)
        if run.group.leads:
            baselines.save(run.folder, held_out.digest(), found)
            storing.keep(run, BASELINE)
    run.pace.note_checkpoint(found.measuring_seconds)
    run.pace.note_end(found.answering_seconds)
    return found


def _measure_slowdown(run: Run, held_out: HeldOut) -> float:
    """How much longer answers take with the adapter: on a CPU about half as long again. Raises: Stopped."""
    seconds = []
    for model in (run.model.disable_adapter(), nullcontext()):
        began = time.monotonic()
        with model:
            answer_lines(run.model, run.encoder, held_out.lines[:_FEW], run.breathe, run.group)
        seconds.append(time.monotonic() - began)
    return max(1.0, seconds[1] / max(seconds[0], 1e-3))


def conclude(run: Run, base: Baseline | None) -> TrainResult:
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


def _evaluate(run: Run, base: Baseline | None, best: str) -> Evaluation | None:
    samples = run.samples
    if samples is None or base is None:
        return None
    run.pace.begin_end()
    run.reporter.stage("Evaluating", f"Scoring {best} against the base model")
    if best != checkpoint_name(run.state.step):
        checkpoints.load_adapter(storing.have_checkpoint(run, best), run.model)
    known = run.state.best_loss if samples.are_one else None
    tuned = _score(run, samples.judging, milestones.measure_on(run, samples.judging) if known is None else known)
    if run.group.leads:
        baselines.save_answers(run.folder, {"base": asdict(base.scored), "tuned": asdict(tuned)})
        storing.keep(run, ANSWERS)
    others = 0 if samples.are_one else samples.choosing.files
    return compare(base.scored, tuned, selection_files=others, provenance=run.provenance)


def _score(run: Run, held_out: HeldOut, loss: float) -> Scored:
    """Losses by file and answers of the model as it is."""
    rows, precision = run.micro_batch, run.parameters.precision
    files = evaluating.file_losses(run.model, held_out, rows, precision, run.breathe, run.group)
    lines = answer_lines(run.model, run.encoder, held_out.lines, run.breathe, run.group)
    middles = []
    if held_out.fim is not None:
        middles = answer_middles(run.model, run.encoder, held_out.fim, held_out.middles, run.breathe, run.group)
    return Scored(loss, files, lines, middles)
