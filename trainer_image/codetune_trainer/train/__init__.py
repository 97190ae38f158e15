"""The training recipe: dataset → tokens → packed sequences → base model with LoRA → loop → evaluation → result."""

import importlib
import logging
import sys
from types import ModuleType
from typing import cast

from codetune_api.contracts import TrainConfig

from codetune_trainer import launching
from codetune_trainer.config import inside, load_config, load_places
from codetune_trainer.train import recovery
from codetune_trainer.train.bringing import bring

__all__ = ["main"]


def main() -> int:
    """Train in this process, or start the processes that do; returns the exit status. Raises: TrainerError."""
    config = load_config(TrainConfig)
    if not launching.is_launched():
        # Once for all processes of this node.
        bring(config, load_places().mirror)
    if launching.needs_launcher(config) and not launching.is_launched():
        if config.nodes == 1 or not recovery.load(inside(load_places().store, config.output, "output")).is_finished:
            return launching.launch(config)
        # A pod that died after its last step comes again alone. Only the report is left, which is the first one's.
        if launching.node_index() > 0:
            return 0
    if config.lora.quantization == "Nf4":
        # It says that it misses kernels for a CPU, on which no such run is.
        logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    else:
        # PEFT loads it wherever it is installed, which takes a fifth of the time until this program's own code runs.
        sys.modules.setdefault("bitsandbytes", cast(ModuleType, None))  # None: it can't be imported
    # Not at the top: the launcher has no use for torch.
    status: int = importlib.import_module("codetune_trainer.train.run").main(config)
    return status
