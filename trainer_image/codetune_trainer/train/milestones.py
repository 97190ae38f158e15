"""What happens at a checkpoint: measure, remember the best, save, prune, tell."""

import math
import time

from codetune_api.artifacts import checkpoint_folder, checkpoint_name, store_uri
from codetune_api.contracts import CheckpointManifest
from codetune_api.finetune import CheckpointStatus
from codetune_api.protocol import CheckpointEvent

from codetune_trainer.errors import DivergedLoss
from codetune_trainer.train import checkpoints, storing
from codetune_trainer.train.charting import add_point
from codetune_trainer.train.pacing import Stopped
from codetune_trainer.train.running import Run, record
from codetune_trainer.train.scoring import evaluating
from codetune_trainer.train.scoring.evaluating import HeldOut


def mark(run: Run) -> None:
    """Measure the model and save a checkpoint.

    Raises: Stopped, with the checkpoint saved all the same; DivergedLoss, with none saved that nobody can use.
    """
    began = time.monotonic()
    try:
        held_out = measure(run)
    except Stopped as stopped:
        save(run, None)
        raise _safe(run) from stopped
    if held_out is not None and not math.isfinite(held_out):
        raise diverged(run, f"After step {run.state.step} the held-out loss was {held_out:g}.")
    if held_out is None and run.state.lost_in_a_row:
        raise diverged(run, f"In step {run.state.step}, the last one before a checkpoint, the loss was no number.")
    _remember_best(run, held_out)
    save(run, held_out)
    run.pace.note_checkpoint(time.monotonic() - began)


def mark_stop(run: Run) -> Stopped:
    """Save what is not saved yet; returns what to raise."""
    if run.state.step and (not run.saved or run.saved[-1].step < run.state.step):
        save(run, None)
    return _safe(run)


def diverged(run: Run, what: str) -> DivergedLoss:
    """What a loss that is no number means."""
    now = run.parameters.learning_rate
    hint = f"Lower training.learningRate (now {now:g}) or raise training.warmupSteps in a new FineTune."
    if run.parameters.precision == "Float16":
        hint += " Float16 ends at 65504: training.precision BFloat16 or Float32 goes on."
    return DivergedLoss(what, hint)


def _safe(run: Run) -> Stopped:
    if not run.saved:
        return Stopped("SIGTERM came before the first step was done.")
    return Stopped(f"SIGTERM came; the run goes on from the checkpoint {run.saved[-1].name}.")


def measure(run: Run) -> float | None:
    """Held-out loss of the model as it is; None when nothing is held out. Raises: Stopped."""
    return None if run.samples is None else measure_on(run, run.samples.choosing)


def measure_on(run: Run, held_out: HeldOut) -> float:
    """Loss of the model as it is on a sample. Raises: Stopped."""
    precision = run.parameters.precision
    return evaluating.mean_loss(run.model, held_out, run.micro_batch, precision, run.breathe, run.group)


def _remember_best(run: Run, held_out: float | None) -> None:
    state, stopping = run.state, run.parameters.early_stopping
    state.measured_step = state.step
    if held_out is None:
        state.best_checkpoint = checkpoint_name(state.step)
        return
    least_fall = stopping.min_delta if stopping else 0.0
    fell = state.best_loss is None or held_out < state.best_loss - least_fall
    state.stale = 0 if fell else state.stale + 1
    if state.best_loss is None or held_out < state.best_loss:
        state.best_loss, state.best_checkpoint = held_out, checkpoint_name(state.step)


def save(run: Run, held_out: float | None) -> None:
    """Write a checkpoint of the state as it is, and remove those that need not be kept."""
    state, name = run.state, checkpoint_name(run.state.step)
    state.history = add_point(state.history, (state.step, state.loss, held_out), run.parameters.max_steps)
    manifest = CheckpointManifest.model_validate_json(run.group.lead(lambda: _write(run, held_out)))
    names = {found.name for found in run.saved} | {name}
    removed = checkpoints.choose_to_remove(names, run.config.checkpoints.keep, state.best_checkpoint)
    if run.group.leads:
        checkpoints.remove(run.checkpoints, removed)
        storing.remove_checkpoints(run, removed)
    status = describe(run, manifest)
    run.saved = [found for found in run.saved if found.name not in (*removed, name)] + [status]
    run.reporter.emit(CheckpointEvent(checkpoint=status, removed=removed))
    record(run, {"step": state.step, "loss": state.loss, "holdoutLoss": held_out, "tokens": state.tokens})


def _write(run: Run, held_out: float | None) -> str:
    manifest = checkpoints.save(run.checkpoints, run.model, run.optimizer, run.state, run.identity, held_out)
    storing.keep_checkpoint(run, manifest.name)
    return manifest.model_dump_json(by_alias=True, exclude_none=True)


def describe(run: Run, manifest: CheckpointManifest) -> CheckpointStatus:
    """A checkpoint of this run as it stands in status."""
    return checkpoints.describe(
        manifest, store_uri(checkpoint_folder(run.config.output, manifest.name), run.mirror.uri)
    )
