"""Finds where a run that was interrupted goes on."""

import json

from codetune_api.contracts import CheckpointManifest
from codetune_api.protocol import ResumedEvent

from codetune_trainer.train import checkpoints, milestones, starting, storing
from codetune_trainer.train.checkpoints import State
from codetune_trainer.train.model.modelling import begin_adapter_anew
from codetune_trainer.train.running import Run


def resume(run: Run) -> None:
    """Go on from the newest whole checkpoint of this run, and say which were passed over and why.

    Raises: IncompatibleCheckpoint.
    """
    if run.group.leads:
        checkpoints.remove(run.checkpoints, [])
    whole, damaged = _sort_out(run)
    # They are of steps that come again; a name that is taken by a damaged one would count as kept.
    if run.group.leads:
        checkpoints.remove(run.checkpoints, damaged)
        storing.remove_checkpoints(run, list(damaged))
    skipped = "; ".join(f"{name} was removed: {why}" for name, why in damaged.items())
    if whole:
        _take(run, whole)
        run.reporter.emit(ResumedEvent(checkpoint=whole[-1].name, step=run.state.step, message=skipped))
        return
    if skipped:
        run.reporter.emit(ResumedEvent(checkpoint="", step=0, message=skipped))
    starting.load(run)


def go_back(run: Run, why: str) -> None:
    """Go back to the newest checkpoint that is whole and sound in the middle of an attempt; without one, to the start.

    An update that spoils the weights shows in the next step's loss, when a checkpoint of it may have been saved.
    """
    found, _ = _sort_out(run)
    whole = [entry for entry in found if entry.holdout_loss is not None or entry.step < run.state.sound_step]
    doubtful = [entry.name for entry in found if entry not in whole]
    storing.drop_checkpoints(run, doubtful)
    if doubtful:
        why = f"{why} Removed, because no loss shows that it is sound: {', '.join(doubtful)}."
    if whole:
        _take(run, whole)
    else:
        begin_adapter_anew(run.model, run.parameters.seed)
        starting.load(run)
        run.optimizer.state.clear()
        run.state, run.saved = State(), []
    run.state.skips_in_a_row = run.state.lost_in_a_row = 0
    run.optimizer.zero_grad(set_to_none=True)
    name = whole[-1].name if whole else ""
    run.reporter.emit(ResumedEvent(checkpoint=name, step=run.state.step, message=why, restarted=False))


def _take(run: Run, whole: list[CheckpointManifest]) -> None:
    folder = storing.have_checkpoint(run, whole[-1].name)
    run.state = checkpoints.restore(folder, run.model, run.optimizer)
    run.saved = [milestones.describe(run, manifest) for manifest in whole]
    _forget_lost_best(run)


def _sort_out(run: Run) -> tuple[list[CheckpointManifest], dict[str, str]]:
    """Whole checkpoints by step, and names of damaged ones with what is wrong, as the leader finds them."""
    told = json.loads(run.group.lead(lambda: _look_at_all(run)))
    return [CheckpointManifest.model_validate(entry) for entry in told["whole"]], told["damaged"]


def _look_at_all(run: Run) -> str:
    whole, damaged = [], {}
    for path in checkpoints.list_checkpoints(run.checkpoints):
        found = checkpoints.verify(path, run.identity)
        if isinstance(found, str):
            damaged[path.name] = found
        else:
            whole.append(found.to_wire())
    return json.dumps({"whole": whole[::-1], "damaged": damaged})


def _forget_lost_best(run: Run) -> None:
    """The best checkpoint may be among the damaged ones: then the best of the others takes its place."""
    if run.state.best_checkpoint in {found.name for found in run.saved}:
        return
    measured = [found for found in run.saved if found.holdout_loss is not None]
    best = min(measured, key=lambda found: found.holdout_loss or 0.0, default=None)
    run.state.best_checkpoint = best.name if best else ""
    run.state.best_loss = best.holdout_loss if best else None
