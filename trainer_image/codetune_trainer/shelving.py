"""Base models of the hub, kept in the bucket of a namespace: the hub is asked once, and not by each pod.

Beside a model's folder lies the list of its files with their digests, put there last: with it the model is there.
"""

from pathlib import Path

from codetune_api.digests import FileEntry
from codetune_bucket.bucket import for_each
from codetune_bucket.mirroring import Mirror
from pydantic import TypeAdapter, ValidationError

from codetune_trainer.manifests import describe_folder

_List = TypeAdapter(dict[str, FileEntry])


def take(mirror: Mirror, path: str, partial: Path) -> bool:
    """Have a model as the bucket keeps it, whole and proven. Returns: whether it does. Raises: BucketError, OSError.

    Args:
        mirror: The store.
        path: The model's folder in it.
        partial: Folder beside it for what came so far.
    """
    if not mirror.is_remote or not mirror.pull_file(_list(path)):
        return False
    bucket = mirror.bucket
    assert bucket is not None
    try:
        files = _List.validate_json((mirror.root / _list(path)).read_bytes())
    except ValidationError:
        return False
    for_each(lambda name: bucket.fetch(mirror.key(f"{path}/{name}"), partial / name, files[name]), files)
    partial.rename(mirror.root / path)
    return True


def keep(mirror: Mirror, path: str) -> None:
    """Put a model there. Raises: BucketError."""
    if mirror.is_remote:
        mirror.push(path)
        files = describe_folder(mirror.root / path)
        (mirror.root / _list(path)).write_bytes(_List.dump_json(files))
        mirror.push_file(_list(path))


def _list(path: str) -> str:
    return f"{path}.json"
