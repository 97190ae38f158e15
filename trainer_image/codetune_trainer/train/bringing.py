"""What a run brings out of a bucket before it begins: its dataset, and what its earlier attempts left there.

Nothing where the store is a folder. Each node does it for itself, once for all of its processes.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from codetune_api.artifacts import ADAPTER_FILES, MANIFEST, checkpoint_folder, run_folder
from codetune_api.contracts import TrainConfig
from codetune_bucket.errors import ObjectDamaged
from codetune_bucket.mirroring import Mirror

from codetune_trainer.train.names import ANSWERS, BASELINE, LOG, METRICS, RECOVERY, START, TRAINED

_KNOWN = (RECOVERY, BASELINE, ANSWERS, METRICS, LOG)
"""What an attempt has to know of those before it, or goes on with."""


def bring(config: TrainConfig, mirror: Mirror) -> None:
    """Have in this pod what the run reads. Raises: BucketError, but not for what is only damaged."""
    if not mirror.is_remote:
        return
    with _tolerating("The dataset"):  # who loads it says what is wrong with it
        mirror.pull(config.dataset, "manifest.json")
    for name in _KNOWN:
        with _tolerating(name):
            mirror.pull_file(f"{config.output}/{name}")
    for name in sorted(mirror.folders(f"{config.output}/checkpoints")):
        folder = checkpoint_folder(config.output, name)
        (mirror.root / folder).mkdir(parents=True, exist_ok=True)
        with _tolerating(name):  # without its manifest it counts as damaged, and the one before it is taken
            mirror.pull(folder, MANIFEST)
    _bring_start(config, mirror)


def _bring_start(config: TrainConfig, mirror: Mirror) -> None:
    """The adapter that earlier attempts began with, or what it is to be taken over from."""
    if config.start is None:
        return
    folder = mirror.root / config.output / START
    mirror.pull(f"{config.output}/{START}")
    if not all((folder / name).is_file() for name in ADAPTER_FILES):
        shutil.rmtree(folder, ignore_errors=True)
        for name in (MANIFEST, *ADAPTER_FILES):
            mirror.pull_file(f"{config.start.path}/{name}")
        with _tolerating(TRAINED):
            mirror.pull_file(f"{run_folder(config.start.path)}/{TRAINED}")


@contextmanager
def _tolerating(what: str) -> Iterator[None]:
    try:
        yield
    except ObjectDamaged as error:
        print(f"{what} can't be used: {error}", flush=True)
