"""Does in a run what its earlier attempts have taught: less memory, a lower learning rate."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace

from codetune_api.protocol import ParametersEvent

from codetune_trainer.errors import DivergedLoss, OutOfMemory, OutOfMemoryNow, PeerLost
from codetune_trainer.train.model.modelling import enable_checkpointing
from codetune_trainer.train.names import RECOVERY
from codetune_trainer.train.recovery import Recovery, learn, load, save
from codetune_trainer.train.running import Run
from codetune_trainer.train.storing import keep

FIRST_STEPS = 3
"""After so many steps of an attempt its memory grows no more."""
LOWER_RATE = 0.5


@contextmanager
def marking(run: Run) -> Iterator[None]:
    """Set a run up as its earlier attempts teach, and leave the mark until it is past its first steps or ends.

    Raises: OutOfMemory.
    """
    run.recovery = Recovery(**json.loads(run.group.lead(lambda: _learn(run))))
    _obey(run)
    _keep(run, replace(run.recovery, is_trying=True, micro_batch=run.micro_batch))
    try:
        yield
    except PeerLost:
        raise  # the other process may have died for want of memory: the mark stays
    except OutOfMemoryNow:
        # Whichever process is short: the others only see that it is gone.
        recomputes = run.parameters.gradient_checkpointing
        short = replace(run.recovery, is_trying=True, is_short=True, checkpointing=recomputes)
        _save(run, replace(short, micro_batch=run.micro_batch))
        if not run.group.leads:
            run.mirror.push_file(f"{run.config.output}/{RECOVERY}")
        raise
    except BaseException:
        end_first_steps(run)
        raise
    end_first_steps(run)


def end_first_steps(run: Run) -> None:
    """Take the mark away."""
    if run.recovery.is_trying:
        _keep(run, replace(run.recovery, is_trying=False))


def finish(run: Run) -> None:
    """The run's result is known."""
    _keep(run, replace(run.recovery, is_finished=True))


def lower_rate(run: Run, error: DivergedLoss) -> str:
    """Halve the learning rate; returns what to say. Raises: the error when it was halved before."""
    if run.recovery.rate < 1:
        raise error
    _keep(run, replace(run.recovery, rate=LOWER_RATE))
    return _take_rate(run)


def tell_skips(run: Run) -> None:
    """Say how many steps have changed nothing."""
    if run.state.skips:
        _change(run, f"Steps that were skipped because their loss or gradient was no number: {run.state.skips}.")


def _take_rate(run: Run) -> str:
    rate = run.parameters.learning_rate * run.recovery.rate
    note = f"The loss had diverged: the learning rate is {rate:g} instead of {run.parameters.learning_rate:g}."
    _change(run, note, learning_rate=rate)
    return note


def _obey(run: Run) -> None:
    learned = run.recovery
    if learned.rate < 1:
        _take_rate(run)
    if learned.most_rows is None or (run.micro_batch <= learned.most_rows and not learned.checkpointing):
        return
    run.micro_batch = min(run.micro_batch, learned.most_rows)
    if learned.checkpointing and not run.parameters.gradient_checkpointing:
        enable_checkpointing(run.model)
    checkpointing = run.parameters.gradient_checkpointing or learned.checkpointing
    how = f"{run.micro_batch} sequences at once" + (", activations computed twice" if checkpointing else "")
    note = f"An attempt before had too little memory: trained with {how}."
    _change(run, note, gradient_checkpointing=checkpointing)


def _change(run: Run, note: str, **values: float | bool) -> None:
    """Parameters that are other than resolved, with the reason."""
    run.parameters = run.parameters.model_copy(update={**values, "notes": [*run.parameters.notes, note]})
    run.reporter.emit(ParametersEvent(parameters=run.parameters))


def _learn(run: Run) -> str:
    found = load(run.folder)
    try:
        return json.dumps(asdict(learn(found, run.config.memory_deaths, run.config.device)))
    except OutOfMemory:
        # Who gives the run more memory starts it again: that attempt must not be judged by these.
        _save(run, replace(found, is_trying=False, is_short=False, deaths=0))
        raise


def _keep(run: Run, recovery: Recovery) -> None:
    run.recovery = recovery
    if run.group.leads:
        _save(run, recovery)


def _save(run: Run, recovery: Recovery) -> None:
    save(run.folder, recovery)
    keep(run, RECOVERY)
