"""How the store service refuses.

StoreError               an answer with a status of 400 or above; carries `StoreRefusal`
├── Unauthorized  401    no token, or not the right one
├── InvalidRequest 400   a name, number or pattern is no such thing
├── InvalidManifest 422  the manifest breaks a rule
├── DigestMismatch 422   what was sent is not what its digest says
├── NotFound      404    nothing is there under that name
├── OffsetMismatch 409   the piece does not begin where the last one ended
├── UploadIncomplete 409 a version can't be committed before all of it is there
├── TooLarge      413    more bytes than a request, a manifest or a content may have
├── BadRange      416    the file has no such bytes
├── StoreUnavailable 503 the bucket can't be reached, does not let us in, or what lies in it is damaged
└── DiskFull      507    the volume has no room left
"""

import errno
from typing import ClassVar

from codetune_api.metadata import ARTIFACTS_CLAIM
from codetune_api.storing import StoreRefusal
from codetune_bucket.errors import BucketError, BucketFull


class StoreError(Exception):
    """A request that is refused.

    Args:
        message: What is wrong and what to do.
        offset: Where the next piece has to begin, if that was the trouble.
    """

    status: ClassVar[int] = 500
    reason: ClassVar[str] = "InternalError"

    def __init__(self, message: str, offset: int | None = None) -> None:
        super().__init__(message)
        self.refusal = StoreRefusal(reason=self.reason, message=message, offset=offset)


class Unauthorized(StoreError):
    """The token is missing or wrong."""

    status, reason = 401, "Unauthorized"


class InvalidRequest(StoreError):
    """A name, number or pattern is no such thing."""

    status, reason = 400, "InvalidRequest"


class InvalidManifest(StoreError):
    """The manifest breaks a rule."""

    status, reason = 422, "InvalidManifest"


class DigestMismatch(StoreError):
    """What was sent is not what its digest says."""

    status, reason = 422, "DigestMismatch"


class NotFound(StoreError):
    """Nothing is there under that name."""

    status, reason = 404, "NotFound"


class OffsetMismatch(StoreError):
    """A piece does not begin where the last one ended."""

    status, reason = 409, "OffsetMismatch"


class UploadIncomplete(StoreError):
    """Not all contents of a version are there."""

    status, reason = 409, "UploadIncomplete"


class TooLarge(StoreError):
    """More bytes than there may be."""

    status, reason = 413, "TooLarge"


class BadRange(StoreError):
    """The file has no such bytes."""

    status, reason = 416, "BadRange"


class DiskFull(StoreError):
    """The volume has no room left."""

    status, reason = 507, "DiskFull"


class StoreUnavailable(StoreError):
    """The bucket of the store does not do what it is asked."""

    status, reason = 503, "StoreUnavailable"


ROOM = (
    f"Give the claim {ARTIFACTS_CLAIM} more space, or delete FineTunes and Projects that nobody needs; then send "
    "again: what is there already is not sent twice."
)


def translate(error: OSError | BucketError) -> StoreError | None:
    """The refusal that an error of the store means to a client; None when it is a fault of ours."""
    if isinstance(error, BucketError):
        return (DiskFull if isinstance(error, BucketFull) else StoreUnavailable)(f"{error.message} {error.hint}")
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return DiskFull(f"The volume of the artifact store is full. {ROOM}")
    if error.errno == errno.ENOENT:
        return NotFound("What this request is about was removed meanwhile: begin again.")
    return None
