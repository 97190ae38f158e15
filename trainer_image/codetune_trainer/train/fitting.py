"""The loop: batches in, optimizer steps and checkpoints out."""

import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from codetune_api.artifacts import checkpoint_folder, store_uri
from codetune_api.contracts import TrainConfig
from codetune_api.finetune import CheckpointStatus, Parameters
from codetune_api.protocol import CheckpointEvent, ProgressEvent

from codetune_trainer.errors import DivergedLoss, OutOfMemory
from codetune_trainer.reporting import Reporter
from codetune_trainer.train import checkpoints, evaluating
from codetune_trainer.train.feeding import Corpus, feed
from codetune_trainer.train.losses import sum_loss
from codetune_trainer.train.modelling import Model
from codetune_trainer.train.pacing import Pace, StopSignal, Throttle, learning_rate
from codetune_trainer.train.packing import Packed


class Stopped(Exception):
    """SIGTERM came and the state is safe."""


CLIP_NORM = 0.5
PROGRESS_SECONDS = 2.0


@dataclass
class Run:
    """Everything that the loop works with."""

    config: TrainConfig
    parameters: Parameters
    model: Model
    optimizer: torch.optim.Optimizer
    corpus: Corpus
    held_out: evaluating.HeldOut | None
    folder: Path
    reporter: Reporter
    stop: StopSignal
    state: checkpoints.State
    micro_batch: int
    """Sequences in one forward pass."""
    saved: list[CheckpointStatus]

    @property
    def identity(self) -> checkpoints.Identity:
        """What checkpoints of this run have in common."""
        return checkpoints.Identity(self.config.base_model, self.parameters.rank, self.config.dataset_revision)

    @property
    def sequences(self) -> int:
        """Sequences in an optimizer step."""
        return self.parameters.batch_tokens // self.parameters.sequence_length


def fit(run: Run) -> None:
    """Train until the last step, or until the held-out loss no longer falls.

    Raises: Stopped after SIGTERM with the state saved; DivergedLoss.
    """
    position = run.state.position
    batches = feed(run.corpus, position, run.sequences)
    pace, throttle, recent = Pace(), Throttle(PROGRESS_SECONDS), _Mean()
    trainable = [found for found in run.model.parameters() if found.requires_grad]
    run.model.train()
    while run.state.step < run.parameters.max_steps:
        started = time.monotonic()
        loss, tokens = _step(run, batches, trainable)
        run.state.step += 1
        run.state.tokens += tokens
        run.state.epoch, run.state.sequence = position.epoch, position.sequence
        recent.add(loss, tokens, time.monotonic() - started)
        pace.note_step(time.monotonic() - started)
        is_last = run.state.step == run.parameters.max_steps
        if is_last or run.state.step % run.parameters.every_steps == 0:
            began = time.monotonic()
            _checkpoint(run, recent)
            pace.note_checkpoint(time.monotonic() - began)
            if _is_stale(run):
                return
        elif run.stop.is_set:
            _checkpoint(run, recent, evaluate=False)
        if throttle.is_due() or is_last:
            _report(run, recent, pace)
        if run.stop.is_set and not is_last:
            raise Stopped(f"checkpoint step-{run.state.step:06d} is written; the run goes on from it")


class _Mean:
    """Loss and speed since the last progress line that told them."""

    def __init__(self) -> None:
        self.loss = 0.0
        self.tokens = 0
        self.seconds = 0.0

    def add(self, loss: float, tokens: int, seconds: float) -> None:
        """Count a step; older steps weigh less, so that it follows a change within some ten steps."""
        self.loss = 0.9 * self.loss + loss * tokens
        self.tokens = round(0.9 * self.tokens) + tokens
        self.seconds = 0.9 * self.seconds + seconds

    @property
    def mean(self) -> float:
        """Nats per token."""
        return self.loss / max(self.tokens, 1)

    @property
    def speed(self) -> float:
        """Tokens per second."""
        return self.tokens / self.seconds if self.seconds else 0.0


def _step(run: Run, batches: Iterator[Packed], trainable: list[torch.nn.Parameter]) -> tuple[float, int]:
    """One optimizer step; returns the mean loss of its tokens and their number."""
    batch = next(batches)
    targets = batch.targets
    device = trainable[0].device
    total = torch.zeros((), device=device)
    for start in range(0, len(batch), run.micro_batch):
        with _autocast(run, device):
            loss = sum_loss(run.model, batch.rows(start, start + run.micro_batch).to(device))
        # The sum over all micro-batches divided by all targets is the mean over the whole batch.
        (loss / max(targets, 1)).backward()
        total += loss.detach()
    mean = total.item() / max(targets, 1)
    if not math.isfinite(mean):
        raise DivergedLoss(
            f"The loss became {mean} in step {run.state.step + 1}.",
            f"Lower training.learningRate (now {run.parameters.learning_rate:g}) or raise training.warmupSteps.",
        )
    torch.nn.utils.clip_grad_norm_(trainable, CLIP_NORM)
    for group in run.optimizer.param_groups:
        group["lr"] = learning_rate(run.state.step + 1, run.parameters)
    run.optimizer.step()
    run.optimizer.zero_grad(set_to_none=True)
    return mean, targets


def _autocast(run: Run, device: torch.device) -> torch.autocast:
    """Adapter weights stay in float32; their products are taken in the precision of the frozen weights."""
    dtype = {"BFloat16": torch.bfloat16, "Float16": torch.float16}.get(run.parameters.precision)
    return torch.autocast(device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None)


def measure(run: Run) -> float | None:
    """Held-out loss of the model as it is."""
    if run.held_out is None:
        return None
    with _autocast(run, next(run.model.parameters()).device):
        return evaluating.mean_loss(run.model, run.held_out, run.micro_batch)


def _checkpoint(run: Run, recent: _Mean, *, evaluate: bool = True) -> None:
    state = run.state
    held_out = measure(run) if evaluate else None
    name = f"step-{state.step:06d}"
    if held_out is not None:
        delta = run.parameters.early_stopping.min_delta if run.parameters.early_stopping else 0.0
        if state.best_loss is None or held_out < state.best_loss - delta:
            state.best_loss, state.best_checkpoint, state.stale = held_out, name, 0
        else:
            state.stale += 1
    elif run.held_out is None:
        state.best_checkpoint = name
    state.history = [*(state.history or []), (state.step, recent.mean, held_out)]
    manifest = checkpoints.save(
        run.folder / "checkpoints", run.model, run.optimizer, state, run.identity, (recent.mean, held_out)
    )
    removed = checkpoints.prune(run.folder / "checkpoints", run.config.checkpoints.keep, state.best_checkpoint)
    status = checkpoints.describe(manifest, store_uri(checkpoint_folder(run.config.output, name)))
    run.saved = [found for found in run.saved if found.name not in (*removed, name)] + [status]
    run.reporter.emit(CheckpointEvent(checkpoint=status, removed=removed))
    _record(run, {"step": state.step, "loss": recent.mean, "holdoutLoss": held_out, "tokens": state.tokens})


def _record(run: Run, row: dict[str, float | int | None]) -> None:
    with (run.folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")


def _report(run: Run, recent: _Mean, pace: Pace) -> None:
    left = run.parameters.max_steps - run.state.step
    run.reporter.emit(
        ProgressEvent(
            step=run.state.step,
            total=run.parameters.max_steps,
            epoch=round(run.state.tokens / max(run.corpus.tokens, 1), 3),
            loss=recent.mean,
            holdout_loss=run.state.history[-1][2] if run.state.history else None,
            lr=learning_rate(run.state.step, run.parameters),
            tokens=run.state.tokens,
            tokens_per_second=recent.speed,
            remaining=pace.remaining(left, math.ceil(left / run.parameters.every_steps)),
        )
    )
    _record(run, {"step": run.state.step, "loss": recent.mean, "tokensPerSecond": recent.speed})


def _is_stale(run: Run) -> bool:
    stopping = run.parameters.early_stopping
    return stopping is not None and run.state.stale >= stopping.patience


def out_of_memory(run_tokens: int, device: str) -> OutOfMemory:
    """What an allocation failure means."""
    return OutOfMemory(
        f"The {'GPU' if device == 'cuda' else 'machine'} has too little memory for sequences of {run_tokens} tokens.",
        "Lower training.sequenceLength or lora.rank in a new FineTune, set training.gradientCheckpointing: On, "
        "or give more memory.",
    )
