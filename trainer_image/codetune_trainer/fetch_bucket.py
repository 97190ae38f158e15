"""A base model that lies in a bucket, as `s3://bucket/path` names it: brought into the store, whole and proven.

It gets a folder that is named by what the bucket lists, so that other files are another model. Where the store is a
claim, pods that come later find it there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from codetune_api.digests import digest_value
from codetune_bucket.bucket import Bucket, Remote, for_each
from codetune_bucket.location import Location

from codetune_trainer.errors import ModelNotFound
from codetune_trainer.hub import HubFile
from codetune_trainer.manifests import sync_folder


@dataclass(frozen=True)
class RemoteModel:
    """A model as the bucket listed it."""

    bucket: Bucket
    remotes: dict[str, Remote]
    """Its files by name."""

    @property
    def files(self) -> list[HubFile]:
        """The same as of a model of the hub."""
        return [HubFile(remote.path, remote.bytes, None, None) for remote in self.remotes.values()]

    @property
    def folder(self) -> str:
        """Where in the store exactly these files go."""
        digest = digest_value({name: [remote.etag, remote.bytes] for name, remote in self.remotes.items()})
        return f"models/s3/{self.bucket.location.bucket}/{digest.removeprefix('sha256:')[:32]}"

    def bring(self, names: Sequence[str], partial: Path, folder: Path) -> None:
        """Have some of them in a folder, as they were listed; what a cut attempt left is gone on with.

        Raises: BucketError, OSError.
        """
        for_each(lambda name: self.bucket.fetch(name, partial / name, etag=self.remotes[name].etag), names)
        sync_folder(partial)
        partial.rename(folder)


def list_model(uri: str) -> RemoteModel:
    """What lies there. Raises: BucketError, ModelNotFound."""
    try:
        bucket = Bucket(Location.parse(uri))
    except ValueError as error:
        raise ModelNotFound(f"{error}.", "Write s3://BUCKET/PATH, where PATH is the folder of the model.") from error
    found = {remote.path: remote for remote in bucket.list() if "/" not in remote.path}
    if not found:
        raise ModelNotFound(f"There is nothing at {uri}.", "Put the model's files there, or correct its path.")
    return RemoteModel(bucket, found)
