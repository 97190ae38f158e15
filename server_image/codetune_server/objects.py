"""Files of adapters that lie in a bucket: of the store, or of another one that a URI names."""

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from codetune_api.artifacts import ADAPTER_FILES
from codetune_api.contracts import DesiredAdapter
from codetune_api.digests import FileEntry
from codetune_bucket.bucket import Bucket
from codetune_bucket.errors import BucketError, ObjectDamaged, ObjectMissing
from codetune_bucket.location import Location
from codetune_bucket.mirroring import Mirror

from codetune_server.refusing import Refused

_PATIENCE = timedelta(seconds=10)
"""The next pass tries again, and the other adapters wait for this one."""


@dataclass(frozen=True)
class RemoteFile:
    """One file of an adapter, as it was when it was looked at."""

    bucket: Bucket
    name: str
    bytes: int
    etag: str

    @property
    def place(self) -> str:
        """Its URI."""
        return self.bucket.uri(self.name)


def find_files(adapter: DesiredAdapter, mirror: Mirror) -> dict[str, RemoteFile] | None:
    """The files of an adapter that lies in a bucket; None when it does not.

    Raises: Refused when they are not there, or the bucket does not let anybody in.
    """
    if adapter.root == "S3":
        place = f"s3://{adapter.path}"
    elif adapter.root is None and mirror.bucket is not None:
        place = mirror.bucket.uri(mirror.key(adapter.path))
    else:
        return None
    try:
        bucket = Bucket(Location.parse(place), _PATIENCE)
        return {name: _look(bucket, name) for name in ADAPTER_FILES}
    except ValueError as error:
        raise Refused("AdapterNotFound", f"{error}: correct the adapter's uri") from error
    except BucketError as error:
        raise refuse(error) from error


def bring_file(file: RemoteFile, target: Path) -> FileEntry:
    """Copy one, proven. Raises: Refused, OSError."""
    try:
        return file.bucket.fetch(file.name, target, etag=file.etag)
    except BucketError as error:
        raise refuse(error) from error


def refuse(error: BucketError) -> Refused:
    """What a bucket says, as the reason why an adapter is not served."""
    reason: str = error.reason
    if isinstance(error, ObjectDamaged):
        reason = "AdapterNotFound" if isinstance(error, ObjectMissing) else "DigestMismatch"
    return Refused(reason, f"{error.message} {error.hint}")


def _look(bucket: Bucket, name: str) -> RemoteFile:
    found = bucket.look(name)
    if found is None:
        next(bucket.list(), None)  # that there is no such bucket is said only to those who list it
        raise ObjectMissing(f"{bucket.uri(name)} is not there:", f"an adapter has {' and '.join(ADAPTER_FILES)}.")
    return RemoteFile(bucket, name, found.bytes, found.etag)
