"""What the parts of the recipe share while a run is under way, and how it speaks."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import torch
from codetune_api.contracts import TrainConfig
from codetune_api.finetune import CheckpointStatus, Parameters
from codetune_api.protocol import ProgressEvent
from codetune_bucket.mirroring import Mirror

from codetune_trainer.reporting import Reporter
from codetune_trainer.train.checkpoints import Identity, State
from codetune_trainer.train.data.encoding import Encoder
from codetune_trainer.train.data.feeding import Corpus
from codetune_trainer.train.group import ALONE, Group
from codetune_trainer.train.model.modelling import Model
from codetune_trainer.train.names import METRICS
from codetune_trainer.train.pacing import Pace, StopSignal, Throttle, count_milestones, learning_rate
from codetune_trainer.train.recovery import Recovery
from codetune_trainer.train.scoring.evaluating import Samples

PROGRESS_SECONDS = 2.0
HEARTBEAT_SECONDS = 20.0


@dataclass
class Run:
    """Everything that the loop works with."""

    config: TrainConfig
    parameters: Parameters
    encoder: Encoder
    model: Model
    optimizer: torch.optim.Optimizer
    corpus: Corpus
    samples: Samples | None
    """Of the held-out files; None when there are none."""
    folder: Path
    reporter: Reporter
    stop: StopSignal
    micro_batch: int
    """Sequences in one forward pass of one process."""
    group: Group = ALONE
    """The processes that share the batches."""
    mirror: Mirror = field(default_factory=lambda: Mirror(Path()))
    """The bucket behind the store, where there is one."""
    provenance: str = ""
    """What has to be said of held-out files that the adapter has seen before this run."""
    recovery: Recovery = field(default_factory=Recovery)
    """What earlier attempts have taught."""
    state: State = field(default_factory=State)
    saved: list[CheckpointStatus] = field(default_factory=list)
    """Checkpoints in the store, by step."""
    pace: Pace = field(default_factory=Pace)
    progress: Throttle = field(default_factory=lambda: Throttle(PROGRESS_SECONDS))
    heartbeat: Throttle = field(default_factory=lambda: Throttle(HEARTBEAT_SECONDS))
    tokens_per_second: float = 0.0

    @property
    def identity(self) -> Identity:
        """What checkpoints of this run have in common."""
        targets = frozenset(self.parameters.target_modules)
        return Identity(self.config.base_model, self.config.dataset_revision, self.parameters.rank, targets)

    @property
    def checkpoints(self) -> Path:
        """Where they lie."""
        return self.folder / "checkpoints"

    @property
    def sequences(self) -> int:
        """Sequences in an optimizer step."""
        return self.parameters.batch_tokens // self.parameters.sequence_length

    @property
    def is_stale(self) -> bool:
        """Whether early stopping ends the run."""
        stopping = self.parameters.early_stopping
        return stopping is not None and self.state.stale >= stopping.patience

    @property
    def is_done(self) -> bool:
        """Whether no step is left to do."""
        return self.state.step >= self.parameters.max_steps or self.is_stale

    def breathe(self) -> None:
        """Between two pieces of work: stop when asked to, and say something when it has been long. Raises: Stopped."""
        self.stop.check()
        if self.heartbeat.is_due():
            report_progress(self)


def report_progress(run: Run) -> None:
    """One progress line."""
    state, parameters = run.state, run.parameters
    total = state.step if run.is_done else parameters.max_steps
    left = total - state.step
    measured = [held_out for _, _, held_out in state.history if held_out is not None]
    run.reporter.emit(
        ProgressEvent(
            step=state.step,
            total=total,
            epoch=round(state.tokens / max(run.corpus.tokens, 1), 3),
            loss=state.loss if state.smooth_tokens else None,
            holdout_loss=measured[-1] if measured else None,
            lr=learning_rate(max(state.step, 1), parameters),
            tokens=state.tokens,
            tokens_per_second=run.tokens_per_second or None,
            remaining=run.pace.remaining(left, count_milestones(state.step, total, parameters.every_steps)),
        )
    )
    run.progress.restart()
    run.heartbeat.restart()


def record(run: Run, row: dict[str, float | int | None]) -> None:
    """One line of `metrics.jsonl`; a run that was killed says the steps after its checkpoint twice."""
    if not run.group.leads:
        return
    with (run.folder / METRICS).open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
