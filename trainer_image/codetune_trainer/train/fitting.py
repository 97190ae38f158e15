"""The loop: batches in, optimizer steps and checkpoints out."""

import hashlib
import math
import time

import torch

from codetune_trainer.errors import DivergedLoss, OutOfMemoryNow
from codetune_trainer.train import machine, milestones, recovering, resuming
from codetune_trainer.train.charting import add_point
from codetune_trainer.train.data.feeding import feed
from codetune_trainer.train.data.packing import Packed
from codetune_trainer.train.model.modelling import enable_checkpointing
from codetune_trainer.train.model.stepping import RandomState, accumulate, apply_gradients, memory_errors, prepare
from codetune_trainer.train.pacing import PeerOutOfMemory, Stopped, learning_rate
from codetune_trainer.train.recovery import out_of_memory
from codetune_trainer.train.running import Run, record, report_progress

MOST_SKIPS = 5
"""So many steps in a row without a number are no accident of a batch any more."""


def fit(run: Run) -> None:
    """Train until the last step, or until the held-out loss no longer falls.

    A step whose loss or gradient is no number changes nothing. Several in a row, or a held-out loss that is none, send
    the run back to its last checkpoint with a lower learning rate, once.

    Raises: Stopped after SIGTERM with the state saved; DivergedLoss; OutOfMemory.
    """
    while True:
        try:
            _fit_on(run)
            return recovering.tell_skips(run)
        except DivergedLoss as error:
            resuming.go_back(run, f"{error.message} {recovering.lower_rate(run, error)}")


def _fit_on(run: Run) -> None:
    """From where the run is. Raises: as `fit`."""
    position = run.state.position
    batches = feed(run.corpus, position, run.sequences, run.parameters.max_steps - run.state.step)
    run.model.train()
    first = run.state.step + 1
    if _owes_measure(run):
        milestones.mark(run)
    while not run.is_done:
        batch = next(batches)
        random = RandomState.take()
        try:
            _step(run, batch)
        except Stopped as stopped:
            # The step counts as not begun: batch and dropout come again after the resume.
            random.restore()
            run.optimizer.zero_grad(set_to_none=True)
            raise milestones.mark_stop(run) from stopped
        run.state.epoch, run.state.sequence = position.epoch, position.sequence
        if run.state.step == first:
            _tell_start(run)
        if run.state.step == first + recovering.FIRST_STEPS - 1:
            recovering.end_first_steps(run)
        if is_milestone(run):
            milestones.mark(run)
        if run.progress.is_due() or run.is_done:
            report_progress(run)


def _tell_start(run: Run) -> None:
    """How long it took from the start of the process to the end of the first step."""
    if not run.group.leads:
        return
    seconds = round(machine.seconds_since_start(), 1)
    record(run, {"step": run.state.step, "secondsToFirstStep": seconds})
    print(f"The first step ended {seconds:g} s after the start of the process.", flush=True)


def is_milestone(run: Run) -> bool:
    """Whether the step that was just done ends with a checkpoint."""
    step = run.state.step
    return step == run.parameters.max_steps or step % run.parameters.every_steps == 0


def _owes_measure(run: Run) -> bool:
    """Whether SIGTERM came between a milestone's last step and the end of its measurement."""
    return run.state.step > 0 and is_milestone(run) and run.state.measured_step < run.state.step


def _step(run: Run, batch: Packed) -> None:
    """One optimizer step. Raises: Stopped with nothing changed, DivergedLoss, OutOfMemory."""
    state, parameters = run.state, run.parameters
    began = time.monotonic()
    _part_random(run)
    rate = learning_rate(state.step + 1, parameters)
    loss, norm = _compute_in_memory(run, batch, rate)
    tokens = batch.targets
    state.step += 1
    _count_skips(run, loss, norm)
    state.tokens += tokens
    if math.isfinite(loss):
        state.add_loss(loss, tokens)
        state.history = add_point(state.history, (state.step, state.loss, None), parameters.max_steps)
    seconds = time.monotonic() - began
    run.pace.note_step(seconds)
    speed = tokens / max(seconds, 1e-9)
    run.tokens_per_second = 0.9 * run.tokens_per_second + 0.1 * speed if run.tokens_per_second else speed
    told = loss if math.isfinite(loss) else None
    row = {"step": state.step, "loss": told, "learningRate": rate, "tokensPerSecond": round(speed, 1)}
    record(run, {**row, "skips": state.skips} if state.skips_in_a_row else row)


def _count_skips(run: Run, loss: float, norm: float) -> None:
    """Whether the step that was just done has changed anything. Raises: DivergedLoss."""
    state = run.state
    state.lost_in_a_row = 0 if math.isfinite(loss) else state.lost_in_a_row + 1
    if math.isfinite(loss) and math.isfinite(norm):
        state.skips_in_a_row = 0
        return
    state.skips += 1
    state.skips_in_a_row += 1
    what = f"In step {state.step} the loss was {loss:g} and its gradient {norm:g}"
    if state.skips_in_a_row >= MOST_SKIPS:
        raise milestones.diverged(run, f"{what}; steps that were skipped in a row: {state.skips_in_a_row}.")
    if state.skips == 1:
        run.reporter.stage("Training", f"{what}: the step is skipped. So will be others like it")


def _part_random(run: Run) -> None:
    """Each process drops out other values: the leader's generator goes on as its checkpoints have it, and the others
    begin anew with each step, so that they need none."""
    if not run.group.leads:
        seed = hashlib.sha256(f"{run.parameters.seed}/{run.state.step}/{run.group.rank}".encode()).digest()[:7]
        torch.manual_seed(int.from_bytes(seed))


def _compute_in_memory(run: Run, batch: Packed, rate: float) -> tuple[float, float]:
    """Change the weights; loss and length of its gradient. With smaller micro-batches where memory is short.

    Raises: Stopped, OutOfMemory.
    """
    random = RandomState.take()
    while True:
        is_summed = False
        try:
            with memory_errors():
                prepare(run.optimizer)
                loss = accumulate(run.model, batch, run.micro_batch, run.parameters.precision, run.breathe, run.group)
                is_summed = True
                return loss, apply_gradients(run.model, run.optimizer, rate, loss)
        except torch.OutOfMemoryError as error:
            if run.parameters.sharded or (is_summed and run.group.size > 1):
                # The others wait for this process's part of a layer, or have done the step: only all of them together
                # can begin again.
                last = out_of_memory(run.config.device)
                raise OutOfMemoryNow(last.message, last.hint) from error
            if not isinstance(error, PeerOutOfMemory):
                run.stop.tell_memory()
            if not _use_less_memory(run):
                raise out_of_memory(run.config.device) from error
        # Out of the handler, so that the failed attempt's tensors are gone before the next one.
        random.restore()
        run.optimizer.zero_grad(set_to_none=True)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _use_less_memory(run: Run) -> bool:
    """Halve the micro-batch, then compute activations twice; False when there is nothing left to try."""
    if run.micro_batch > 1:
        run.micro_batch = math.ceil(run.micro_batch / 2)
    elif not run.parameters.gradient_checkpointing:
        enable_checkpointing(run.model)
        run.parameters = run.parameters.model_copy(update={"gradient_checkpointing": True})
    else:
        return False
    how = "gradient checkpointing" if run.parameters.gradient_checkpointing else f"{run.micro_batch} sequences at once"
    run.reporter.stage("Training", f"Memory is short: going on with {how}")
    return True
