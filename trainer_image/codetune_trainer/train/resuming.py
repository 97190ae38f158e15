"""Finds where a run that was interrupted goes on."""

from codetune_api.contracts import CheckpointManifest
from codetune_api.protocol import ResumedEvent

from codetune_trainer.train import checkpoints, milestones, starting
from codetune_trainer.train.running import Run


def resume(run: Run) -> None:
    """Go on from the newest whole checkpoint of this run, and say which were passed over and why.

    Raises: IncompatibleCheckpoint.
    """
    checkpoints.remove(run.checkpoints, [])
    whole, damaged = _sort_out(run)
    # They are of steps that come again; a name that is taken by a damaged one would count as kept.
    checkpoints.remove(run.checkpoints, damaged)
    skipped = "; ".join(f"{name} was removed: {why}" for name, why in damaged.items())
    if not whole:
        if skipped:
            run.reporter.stage("Training", f"Starting anew: {skipped}")
        starting.load(run)
        return
    newest = whole[-1]
    run.state = checkpoints.restore(run.checkpoints / newest.name, run.model, run.optimizer)
    run.saved = [milestones.describe(run, manifest) for manifest in whole]
    _forget_lost_best(run)
    run.reporter.emit(ResumedEvent(checkpoint=newest.name, step=newest.step, message=skipped))


def _sort_out(run: Run) -> tuple[list[CheckpointManifest], dict[str, str]]:
    """Whole checkpoints by step, and names of damaged ones with what is wrong."""
    whole, damaged = [], {}
    for path in checkpoints.list_checkpoints(run.checkpoints):
        found = checkpoints.verify(path, run.identity)
        if isinstance(found, str):
            damaged[path.name] = found
        else:
            whole.append(found)
    return whole[::-1], damaged


def _forget_lost_best(run: Run) -> None:
    """The best checkpoint may be among the damaged ones: then the best of the others takes its place."""
    if run.state.best_checkpoint in {found.name for found in run.saved}:
        return
    measured = [found for found in run.saved if found.holdout_loss is not None]
    best = min(measured, key=lambda found: found.holdout_loss or 0.0, default=None)
    run.state.best_checkpoint = best.name if best else ""
    run.state.best_loss = best.holdout_loss if best else None
