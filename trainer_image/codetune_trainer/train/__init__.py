"""The training recipe: dataset → tokens → packed sequences → base model with LoRA → loop → evaluation → result."""

import importlib

from codetune_api.contracts import TrainConfig

from codetune_trainer import launching
from codetune_trainer.config import load_config

__all__ = ["main"]


def main() -> int:
    """Train in this process, or start the processes that do; returns the exit status. Raises: TrainerError."""
    config = load_config(TrainConfig)
    if launching.needs_launcher(config) and not launching.is_launched():
        return launching.launch(config)
    # Not at the top: the launcher has no use for torch.
    status: int = importlib.import_module("codetune_trainer.train.run").main(config)
    return status
