"""A base model that lies in a bucket, as `s3://bucket/path` names it: brought into the store, whole and proven.

It gets a folder that is named by what the bucket lists, so that other files are another model. Where the store is a
claim, pods that come later find it there.
"""

from pathlib import Path

from codetune_api.digests import digest_value
from codetune_bucket.bucket import Bucket, for_each
from codetune_bucket.location import Location

from codetune_trainer.errors import ModelNotFound
from codetune_trainer.hub import HubFile
from codetune_trainer.manifests import sync_folder


def list_model(uri: str) -> tuple[Bucket, list[HubFile], str]:
    """The bucket, the files that lie there, and a name for exactly these. Raises: BucketError, ModelNotFound."""
    try:
        bucket = Bucket(Location.parse(uri))
    except ValueError as error:
        raise ModelNotFound(f"{error}.", "Write s3://BUCKET/PATH, where PATH is the folder of the model.") from error
    found = [remote for remote in bucket.list() if "/" not in remote.path]
    if not found:
        raise ModelNotFound(f"There is nothing at {uri}.", "Put the model's files there, or correct its path.")
    digest = digest_value({remote.path: [remote.etag, remote.bytes] for remote in found})
    files = [HubFile(remote.path, remote.bytes, None, None) for remote in found]
    return bucket, files, digest.removeprefix("sha256:")[:32]


def model_folder(bucket: Bucket, name: str) -> str:
    """Where in the store such a model goes."""
    return f"models/s3/{bucket.location.bucket}/{name}"


def bring_files(bucket: Bucket, files: list[HubFile], partial: Path, folder: Path) -> None:
    """Have all of them in the folder; what a cut attempt left is gone on with. Raises: BucketError, OSError."""
    for_each(lambda name: bucket.fetch(name, partial / name), [file.name for file in files])
    sync_folder(partial)
    partial.rename(folder)
