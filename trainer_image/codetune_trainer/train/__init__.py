"""The training recipe: dataset → tokens → packed sequences → base model with LoRA → loop → evaluation → result."""

from codetune_trainer.train.run import main

__all__ = ["main"]
