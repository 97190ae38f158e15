"""What the files in a run's folder are called, besides its checkpoints."""

from codetune_api.artifacts import TRAIN_LOG

CONFIG = "config.json"
METRICS = "metrics.jsonl"
LOG = TRAIN_LOG
RECOVERY = "recovery.json"
BASELINE = "baseline.json"
ANSWERS = "evaluation.json"
"""Marks of every question, base and tuned; no text of any file."""
TRAINED = "trained.txt"
"""Digests of the texts that the adapter was trained on, also before this run; beside the adapter in `START` too."""
START = "start"
"""Folder of the adapter that the run begins with."""
