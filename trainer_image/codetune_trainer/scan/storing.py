"""What a scan keeps in a bucket for the next one: its verdicts with the dataset that they stand on, and losses.

What was fetched is not kept there: the next scan fetches it anew. Where the store is a folder, all of it simply stays.
"""

from pathlib import Path

from codetune_api.contracts import ScanConfig
from codetune_bucket.errors import ObjectDamaged
from codetune_bucket.mirroring import Mirror

from codetune_trainer.scan.dataset.writing import FILES
from codetune_trainer.scan.judging import remembering
from codetune_trainer.scan.quality import measuring


def bring(config: ScanConfig, mirror: Mirror) -> None:
    """Have in the pod what the last scan kept. What is damaged is found out anew. Raises: BucketError."""
    if not mirror.is_remote:
        return
    try:
        mirror.pull(_verdicts(config), remembering.META)
        dataset = remembering.read_dataset(mirror.root / _verdicts(config))
        if dataset is not None:
            mirror.pull_file(f"{config.output}/{dataset}/{FILES}")
        if config.files.quality is not None:
            mirror.pull(_losses(config))
    except ObjectDamaged as error:
        print(f"What the last scan kept can't be used: {error}", flush=True)


def keep_memory(config: ScanConfig, mirror: Mirror) -> None:
    """Put it there for the next scan, when the dataset is. Raises: BucketError."""
    mirror.push(_verdicts(config), remembering.META)
    if config.files.quality is not None:
        mirror.push(_losses(config))


def _verdicts(config: ScanConfig) -> str:
    return f"{Path(config.cache).parent.as_posix()}/{remembering.FOLDER}"


def _losses(config: ScanConfig) -> str:
    return f"{config.cache}/{measuring.FOLDER}"
