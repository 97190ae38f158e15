"""What a run keeps in a bucket: its checkpoints, what its next attempts have to know, and its log.

Nothing where the store is a folder. A checkpoint is there before anybody is told of it, so a pod that comes after a
killed one finds it.
"""

import fcntl
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from codetune_api.artifacts import MANIFEST, checkpoint_folder
from codetune_api.contracts import TrainConfig
from codetune_bucket.errors import BucketError
from codetune_bucket.mirroring import Mirror

from codetune_trainer.train import checkpoints
from codetune_trainer.train.names import CONFIG, LOG, METRICS, START
from codetune_trainer.train.running import Run


def keep(run: Run, *names: str) -> None:
    """Put files of the run's folder there; those that it does not have are left out. Raises: BucketError."""
    if run.group.leads:
        for name in names:
            if (run.folder / name).is_file():
                run.mirror.push_file(f"{run.config.output}/{name}")


def keep_start(config: TrainConfig, mirror: Mirror) -> None:
    """Put the adapter there that the run begins with. Raises: BucketError."""
    if config.start is not None:
        mirror.push(f"{config.output}/{START}")


def keep_checkpoint(run: Run, name: str) -> None:
    """Put a checkpoint there, and what has been said up to it. Raises: BucketError."""
    run.mirror.push(checkpoint_folder(run.config.output, name), MANIFEST)
    keep(run, METRICS, LOG, CONFIG)


def remove_checkpoints(run: Run, names: Iterable[str]) -> None:
    """Raises: BucketError."""
    for name in names:
        run.mirror.remove(checkpoint_folder(run.config.output, name))


def drop_checkpoints(run: Run, names: Sequence[str]) -> None:
    """Remove checkpoints that come again with other weights, copies on other nodes too. Raises: BucketError."""
    if run.mirror.is_remote:
        with _one_of_a_node(run):
            checkpoints.remove(run.checkpoints, names)
    elif run.group.leads:
        checkpoints.remove(run.checkpoints, names)
    if run.group.leads:
        remove_checkpoints(run, names)


@contextmanager
def _one_of_a_node(run: Run) -> Iterator[None]:
    with (run.folder / ".bringing").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def have_checkpoint(run: Run, name: str) -> Path:
    """The folder of a checkpoint that the leader has, maybe on another node. Raises: BucketError."""
    folder = run.checkpoints / name
    if run.mirror.is_remote:
        with _one_of_a_node(run):  # for all of them
            if not (folder / MANIFEST).is_file():
                run.mirror.pull(checkpoint_folder(run.config.output, name), MANIFEST)
    return folder


@contextmanager
def keeping_last_words(folder: str, mirror: Mirror) -> Iterator[None]:
    """Put log and metrics there however the run ends; that this fails is no reason to end otherwise.

    Args:
        folder: The run's, below the store.
        mirror: Where they go.
    """
    try:
        yield
    finally:
        for name in (METRICS, LOG):
            if mirror.is_remote and (mirror.root / folder / name).is_file():
                try:
                    mirror.push_file(f"{folder}/{name}")
                except BucketError as error:
                    print(f"{name} can't be kept: {error}", flush=True)
