"""The training recipe: dataset → tokens → packed sequences → base model with LoRA → loop → evaluation → result."""
