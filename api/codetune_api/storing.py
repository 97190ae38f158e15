"""What the store service and its clients say to each other over HTTP, below `/v1`.

A refusal is a `StoreRefusal` with an HTTP status of 400 or above; everything else that is no file is one of the models
below, or JSON Lines of one of them.
"""

from pydantic import Field

from codetune_api.contracts import Contract

ENV_STORE_TOKEN_FILE = "CODETUNE_STORE_TOKEN_FILE"
"""File with the token that every request must bring."""


class StoreInfo(Contract):
    """Answer of `GET /v1`."""

    version: str
    namespace: str
    free_bytes: int
    """Room left on the volume."""


class UploadRequest(Contract):
    """Body of `POST /v1/projects/P/uploads/S`: begin or go on with sending a version."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """Hex digest of the manifest; names the session."""
    bytes: int = Field(ge=1)
    """Size of the manifest."""


class UploadProgress(Contract):
    """How much of a manifest or a content is there."""

    offset: int
    """Bytes; the next piece begins here."""
    complete: bool
    """All of it is there and has its digest."""


class MissingBlob(Contract):
    """One line of `GET …/SESSION/missing`: a content that is still to be sent."""

    sha256: str
    bytes: int
    offset: int
    """Bytes of it that are there already."""


class PackAnswer(Contract):
    """Answer of `POST …/SESSION/packs`."""

    stored: int
    """Contents of the pack that are in the store now."""


class RunFile(Contract):
    """A file of a FineTune's run."""

    path: str
    """Below the run's folder."""
    bytes: int


class RunFiles(Contract):
    """Answer of `GET /v1/finetunes/F/UID/files`."""

    files: list[RunFile]
    truncated: bool = False
    """There are more than are listed."""


class StoreRefusal(Contract):
    """Body of every answer with a status of 400 or above."""

    reason: str
    """CamelCase, stable: Unauthorized, NotFound, InvalidRequest, InvalidManifest, OffsetMismatch, DigestMismatch,
    UploadIncomplete, TooLarge, DiskFull, StoreUnavailable, InternalError."""
    message: str
    """What is wrong and what to do."""
    offset: int | None = None
    """With OffsetMismatch: where the next piece has to begin."""
