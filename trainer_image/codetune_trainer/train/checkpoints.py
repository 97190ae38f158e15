"""Checkpoints: PEFT's own adapter files, the state that a resume needs, and a manifest that is written last.

A checkpoint is written beside and renamed, and renamed before it is removed, so a half-written or half-removed one is
never seen; state is safetensors and JSON, no pickle.
"""

import errno
import json
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from codetune_api.artifacts import ADAPTER_FILES, MANIFEST, checkpoint_name, checkpoint_order
from codetune_api.contracts import CheckpointManifest
from codetune_api.digests import describe_file
from codetune_api.finetune import CheckpointStatus
from peft import set_peft_model_state_dict
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from codetune_trainer.errors import IncompatibleCheckpoint
from codetune_trainer.manifests import describe_folder, is_intact, sync_folder
from codetune_trainer.train.data.feeding import Position
from codetune_trainer.train.model.modelling import Model
from codetune_trainer.train.model.stepping import RandomState


@dataclass(frozen=True)
class Identity:
    """What must be equal for a checkpoint to be of this run."""

    base_model: str
    dataset_revision: str
    rank: int
    target_modules: frozenset[str]


@dataclass
class State:
    """What a run knows besides its weights."""

    step: int = 0
    tokens: int = 0
    epoch: int = 0
    sequence: int = 0
    smooth_loss: float = 0.0
    """Sum of the last steps' losses times their tokens, older steps weighing less."""
    smooth_tokens: float = 0.0
    best_loss: float | None = None
    best_checkpoint: str = ""
    stale: int = 0
    """Checkpoints since the best one."""
    measured_step: int = 0
    """The last step whose held-out loss was measured."""
    skips: int = 0
    """Steps that changed nothing, because their loss or gradient was no number."""
    skips_in_a_row: int = 0
    """How many of them were the last ones."""
    lost_in_a_row: int = 0
    """How many of the last steps had a loss that was no number, whatever became of the gradient."""
    history: tuple[tuple[int, float, float | None], ...] = ()
    """(step, loss, held-out loss) over the whole run."""

    @property
    def position(self) -> Position:
        """Where in the data the run is."""
        return Position(self.epoch, self.sequence)

    @property
    def sound_step(self) -> int:
        """The last step whose loss was a number: weights from before it are sound, those from after it may not be."""
        return self.step - self.lost_in_a_row

    @property
    def loss(self) -> float:
        """Training loss of about the last ten steps, in nats per token."""
        return self.smooth_loss / self.smooth_tokens if self.smooth_tokens else 0.0

    def add_loss(self, loss: float, tokens: int) -> None:
        """Count a step."""
        self.smooth_loss = 0.9 * self.smooth_loss + loss * tokens
        self.smooth_tokens = 0.9 * self.smooth_tokens + tokens


def save(
    folder: Path,
    model: Model,
    optimizer: torch.optim.Optimizer,
    state: State,
    identity: Identity,
    holdout_loss: float | None,
) -> CheckpointManifest:
    """Write a checkpoint below `folder`; returns its manifest. Raises: OSError, ENOSPC among them."""
    name = checkpoint_name(state.step)
    beside = folder / f".{name}.part"
    shutil.rmtree(beside, ignore_errors=True)
    (beside / "state").mkdir(parents=True)
    with _disk_errors(beside):
        # Never saved with it: else PEFT would ask the hub about the base model.
        model.save_pretrained(beside, safe_serialization=True, save_embedding_layers=False)
        save_file(_state_tensors(optimizer), beside / "state" / "state.safetensors")
    (beside / "README.md").unlink(missing_ok=True)  # PEFT's empty model card
    (beside / "state" / "state.json").write_text(json.dumps(asdict(state)))
    manifest = CheckpointManifest(
        name=name,
        step=state.step,
        loss=state.loss,
        holdout_loss=holdout_loss,
        base_model=identity.base_model,
        rank=identity.rank,
        dataset_revision=identity.dataset_revision,
        created_at=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        adapter={file: describe_file(beside / file) for file in ADAPTER_FILES},
        state={f"state/{file}": entry for file, entry in describe_folder(beside / "state").items()},
    )
    (beside / MANIFEST).write_text(manifest.model_dump_json(by_alias=True, exclude_none=True))
    sync_folder(beside)
    remove(folder, [name])
    beside.rename(folder / name)
    sync_folder(folder)
    return manifest


@contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    """safetensors has an error of its own for a full disk. Raises: OSError."""
    try:
        yield
    except SafetensorError as error:
        if f"os error {errno.ENOSPC}" not in str(error):
            raise
        raise OSError(errno.ENOSPC, "No space left on device", str(path)) from error


def _state_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    random = RandomState.take()
    found = {"rng.cpu": random.cpu}
    if random.cuda is not None:
        found["rng.cuda"] = random.cuda
    for index, entry in optimizer.state_dict()["state"].items():
        found |= {f"optimizer.{index}.{key}": torch.as_tensor(value).contiguous() for key, value in entry.items()}
    return found


def restore(folder: Path, model: Model, optimizer: torch.optim.Optimizer) -> State:
    """Take weights, optimizer, random state and position from a checkpoint."""
    load_adapter(folder, model)
    tensors = load_file(folder / "state" / "state.safetensors")
    RandomState(tensors.pop("rng.cpu"), tensors.pop("rng.cuda", None)).restore()
    entries: dict[int, dict[str, Any]] = {}
    for name, value in tensors.items():
        _, index, key = name.split(".", 2)
        entries.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": entries})
    fields = json.loads((folder / "state" / "state.json").read_text())
    return State(**{**fields, "history": tuple(tuple(point) for point in fields["history"])})


def load_adapter(folder: Path, model: Model) -> None:
    """Take the adapter's weights from a checkpoint."""
    set_peft_model_state_dict(model, load_file(folder / "adapter_model.safetensors"))


def list_checkpoints(folder: Path) -> list[Path]:
    """All checkpoints, whole or not, from the newest on."""
    return sorted(folder.glob("step-*"), key=lambda found: checkpoint_order(found.name), reverse=True)


def verify(path: Path, identity: Identity) -> CheckpointManifest | str:
    """The manifest of a whole checkpoint, or why it is not whole. Raises: IncompatibleCheckpoint."""
    try:
        manifest = CheckpointManifest.model_validate_json((path / MANIFEST).read_bytes())
    except (OSError, ValidationError):
        return "it has no readable manifest"
    if not is_intact(path, {**manifest.adapter, **manifest.state}):
        return "its files are not those of its manifest"
    targets = frozenset(json.loads((path / "adapter_config.json").read_text())["target_modules"])
    found = Identity(manifest.base_model, manifest.dataset_revision, manifest.rank, targets)
    if found != identity:
        raise IncompatibleCheckpoint(
            f"The checkpoint {path.name} in the run's folder was made with {_differences(found, identity)}.",
            "Make a new FineTune: it gets a folder of its own.",
        )
    return manifest


def _differences(found: Identity, wanted: Identity) -> str:
    pairs = ((key, value, asdict(wanted)[key]) for key, value in asdict(found).items())
    return ", ".join(f"{key} {_say(value)} instead of {_say(other)}" for key, value, other in pairs if value != other)


def _say(value: Any) -> str:
    return "+".join(sorted(value)) if isinstance(value, frozenset) else str(value)


def choose_to_remove(names: Iterable[str], keep: int, best: str) -> list[str]:
    """All names but the newest `keep` and the best one."""
    return [name for name in sorted(names, key=checkpoint_order, reverse=True)[keep:] if name != best]


def remove(folder: Path, names: Iterable[str]) -> None:
    """Remove checkpoints, and what a killed attempt left half-done."""
    for name in names:
        if (folder / name).exists():
            (folder / name).rename(folder / f".{name}.gone")
    for leftover in folder.glob(".step-*.gone"):
        shutil.rmtree(leftover)


def describe(manifest: CheckpointManifest, uri: str) -> CheckpointStatus:
    """A checkpoint as it stands in status."""
    return CheckpointStatus(
        name=manifest.name,
        step=manifest.step,
        loss=manifest.loss,
        holdout_loss=manifest.holdout_loss,
        uri=uri,
        digest=manifest.digest(),
        bytes=sum(entry.bytes for entry in (*manifest.adapter.values(), *manifest.state.values())),
        created_at=manifest.created_at,
    )
