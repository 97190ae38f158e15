"""Everything that can end a run, as one tree of exceptions, and the one place that turns them into last words.

    TrainerError                 a run can't go on; carries reason, message and hint
    ├── SourceError              one source of a Project can't be used; a scan goes on with the others
    │   ├── SourceUnavailable    HostUnreachable: nothing else of the host can be had now either
    │   ├── RevisionNotFound, AuthenticationFailed, EmptyRepository, UnsupportedSource,
    │   ├── HostKeyUnknown, HostKeyChanged, PathNotFound
    │   └── UploadMissing, DigestMismatch, InvalidArchive
    ├── EmptyDataset             no file is left to train on
    ├── DatasetMissing           the dataset that a run pins is not in the store, or not whole
    ├── InvalidParameters        the configuration can't be carried out as it stands
    ├── ModelNotFound, GatedModel
    ├── UnsupportedModel         the base model can't be trained or served
    │   └── NotCausalModel, PickledWeights, RemoteCodeModel
    ├── ModelUnavailable         the hub can't be reached; the same reason as SourceUnavailable
    ├── IncompatibleCheckpoint, DivergedLoss
    ├── OutOfMemory              nothing is left to try; OutOfMemoryNow: the next attempt takes less at once
    ├── DeviceMissing            the pod has no GPU although it asked for one
    ├── PeerMissing              the processes of a run do not find each other
    ├── PeerLost                 another process of the run is gone, which alone says why
    ├── StoreDenied              the bucket of the store does not let this run in
    ├── StoreUnavailable         the bucket can't be reached or does not work now
    ├── StoreDamaged             what lies in the bucket is not what was put there
    └── DiskFull                 a volume has no space left

A container that fails writes `{reason, message, hint}` to its termination log, where the operator reads it.
"""

import errno
import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from codetune_api.common import FailureReason
from codetune_api.contracts import ENV_BUCKET, Terminated
from codetune_bucket.errors import BucketError

EXIT_RETRY = 1
"""Another attempt may succeed."""
EXIT_PERMANENT = 64
"""Another attempt ends the same way: the Job's podFailurePolicy fails the Job at once."""
EXIT_STOPPED = 143
"""Stopped by SIGTERM with nothing lost: the Job does not count it as a failure."""
EXIT_PEER_LOST = 75
"""Only another process of the run has failed: the Job does not count this pod besides that one."""
TERMINATION_LOG_BYTES = 4096
"""The kubelet keeps no more than this of a termination log."""

_PERMANENT: frozenset[FailureReason] = frozenset(
    {
        "ModelNotFound",
        "GatedModel",
        "EmptyDataset",
        "UnsupportedModel",
        "NotCausalModel",
        "PickledWeights",
        "RemoteCodeModel",
        "InvalidParameters",
        "IncompatibleCheckpoint",
        "OutOfMemory",
        "DivergedLoss",
        "RevisionNotFound",
        "AuthenticationFailed",
        "HostKeyUnknown",
        "HostKeyChanged",
        "PathNotFound",
        "EmptyRepository",
        "UnsupportedSource",
        "DigestMismatch",
        "InvalidArchive",
        "UploadMissing",
        "StoreDenied",
        "StoreDamaged",
    }
)
_HUMAN_LINE_CHARACTERS = 2000


class TrainerError(Exception):
    """A run can't go on.

    Args:
        message: What happened, with the values.
        hint: What to change so that it works.
    """

    reason: ClassVar[FailureReason] = "InternalError"

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    @property
    def exit_code(self) -> int:
        """Whether another attempt makes sense."""
        return EXIT_PERMANENT if self.reason in _PERMANENT else EXIT_RETRY


class SourceError(TrainerError):
    """One source of a Project can't be used."""

    reason: ClassVar[FailureReason] = "SourceUnavailable"


class SourceUnavailable(SourceError):
    """The source does not exist, or can't be reached now."""


class HostUnreachable(SourceUnavailable):
    """No connection to the source's host comes about."""


class RevisionNotFound(SourceError):
    """The repository has no such branch, tag or commit."""

    reason = "RevisionNotFound"


class AuthenticationFailed(SourceError):
    """The source wants credentials that it was not given, or refuses those that it was given."""

    reason = "AuthenticationFailed"


class HostKeyUnknown(SourceError):
    """The Secret does not say by which key an ssh server is known."""

    reason = "HostKeyUnknown"


class HostKeyChanged(SourceError):
    """An ssh server shows another key than the one that it is known by."""

    reason = "HostKeyChanged"


class PathNotFound(SourceError):
    """The commit has no such folder."""

    reason = "PathNotFound"


class EmptyRepository(SourceError):
    """The repository has no commit."""

    reason = "EmptyRepository"


class UnsupportedSource(SourceError):
    """A kind of source, or a form of URL, that this version or this cluster does not take."""

    reason = "UnsupportedSource"


class DigestMismatch(SourceError):
    """What the server gives does not have the digest that the spec asks for."""

    reason = "DigestMismatch"


class InvalidArchive(SourceError):
    """What the server gives is no archive, is damaged, or is beyond a limit."""

    reason = "InvalidArchive"


class UploadMissing(SourceError):
    """Nobody has sent files for an upload source yet."""

    reason = "UploadMissing"


class EmptyDataset(TrainerError):
    """No file is left to train on."""

    reason = "EmptyDataset"


class DatasetMissing(TrainerError):
    """The dataset that a run pins is not in the store, or not whole."""

    reason = "DatasetMissing"


class InvalidParameters(TrainerError):
    """The configuration can't be carried out as it stands."""

    reason = "InvalidParameters"


class ModelNotFound(TrainerError):
    """The base model does not exist where its URI points."""

    reason = "ModelNotFound"


class GatedModel(TrainerError):
    """The hub gives the base model only to accounts that accepted its terms."""

    reason = "GatedModel"


class UnsupportedModel(TrainerError):
    """The base model is of a kind that can't be trained or served."""

    reason: ClassVar[FailureReason] = "UnsupportedModel"


class NotCausalModel(UnsupportedModel):
    """The base model does not write text from left to right, so it completes no code."""

    reason = "NotCausalModel"


class PickledWeights(UnsupportedModel):
    """The base model has no weights but pickles, which run code when they are loaded."""

    reason = "PickledWeights"


class RemoteCodeModel(UnsupportedModel):
    """The base model can be built only by Python code that it brings along, which is never run."""

    reason = "RemoteCodeModel"


class ModelUnavailable(TrainerError):
    """The model hub can't be reached now."""

    reason = "SourceUnavailable"


class IncompatibleCheckpoint(TrainerError):
    """A checkpoint belongs to another base model, dataset or LoRA shape."""

    reason = "IncompatibleCheckpoint"


class DivergedLoss(TrainerError):
    """The loss is no number any more."""

    reason = "DivergedLoss"


class OutOfMemory(TrainerError):
    """The memory of the pod or of its GPU is not enough."""

    reason = "OutOfMemory"


class OutOfMemoryNow(OutOfMemory):
    """The next attempt takes less memory at once."""

    @property
    def exit_code(self) -> int:
        """Another attempt may succeed."""
        return EXIT_RETRY


class DeviceMissing(TrainerError):
    """The pod has no GPU although it asked for one."""

    reason = "StartError"


class PeerMissing(TrainerError):
    """The processes of a run do not find each other."""

    reason = "StartError"


class PeerLost(TrainerError):
    """Another process of the run is gone."""

    reason = "CrashLoop"

    @property
    def exit_code(self) -> int:
        """One of its own."""
        return EXIT_PEER_LOST


class DiskFull(TrainerError):
    """A volume has no space left."""

    reason = "DiskFull"


class StoreDenied(TrainerError):
    """The bucket of the store does not let this run in."""

    reason = "StoreDenied"


class StoreUnavailable(TrainerError):
    """The bucket of the store can't be reached, or does not work now."""

    reason = "StoreUnavailable"


class StoreDamaged(TrainerError):
    """What lies in the bucket of the store is not what was put there."""

    reason = "StoreDamaged"


_OF_BUCKETS: dict[FailureReason, type[TrainerError]] = {
    kind.reason: kind for kind in (StoreDenied, StoreUnavailable, StoreDamaged, DiskFull)
}


def say_room() -> str:
    """What to do about a store without room: a claim, or the pod's own copy of what it needs of a bucket."""
    if os.environ.get(ENV_BUCKET):
        return "Raise store.size in the operator's settings: it is the room that each pod has for its own copy."
    return "Give the claim codetune-artifacts more space, or delete FineTunes and Projects that nobody needs."


MORE_MEMORY = "Raise spec.resources.memory."
MORE_SCAN_MEMORY = "Raise files.quality.resources.memory where that is set, else the operator's scanResources."
"""A Project has no spec.resources: what to do for its scan."""


def run_to_exit_code(run: Callable[[], int], termination_log: Path | None, more_memory: str = MORE_MEMORY) -> int:
    """Run a program's body; a failure becomes one human line, the termination log and an exit code.

    Args:
        run: The body.
        termination_log: Where the machine's form goes.
        more_memory: What to do where the pod has too little memory.
    """
    try:
        return run()
    except Exception as error:
        failure = translate(error, more_memory)
        if failure is not error:
            traceback.print_exception(error, file=sys.stderr)
        tell_failure(failure, None if _is_told(failure, termination_log) else termination_log)
        return failure.exit_code


def _is_told(failure: TrainerError, termination_log: Path | None) -> bool:
    """Whether last words are those of another process, which failed first: who misses it knows nothing of why."""
    if isinstance(failure, PeerMissing):
        return termination_log is not None and termination_log.is_file() and termination_log.stat().st_size > 0
    return isinstance(failure, PeerLost)


def translate(error: Exception, more_memory: str = MORE_MEMORY) -> TrainerError:
    """The failure that an exception stands for; our own come back as they are."""
    if isinstance(error, TrainerError):
        return error
    if isinstance(error, BucketError):
        return _OF_BUCKETS[error.reason](error.message, error.hint)
    # EFBIG: a limit on the size of a file, of the volume or of the process.
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
        where = f" while writing {error.filename}" if error.filename else ""
        return DiskFull(
            f"A volume is full{where}.",
            say_room(),
        )
    if isinstance(error, MemoryError):
        return OutOfMemory("The pod ran out of memory.", more_memory)
    return TrainerError(
        f"{type(error).__name__}: {error}",
        "This is a fault of Codetune: please report it with the log of this pod.",
    )


def tell_failure(failure: TrainerError, termination_log: Path | None) -> None:
    """Print one line for a person and write the machine's form to the termination log."""
    line = " ".join(f"{failure.reason}: {failure.message} {failure.hint}".split())
    print(line[:_HUMAN_LINE_CHARACTERS], file=sys.stderr, flush=True)
    if termination_log is None:
        return
    try:
        termination_log.write_bytes(render_terminated(failure))
    except OSError as error:
        print(f"The termination log {termination_log} can't be written: {error}", file=sys.stderr, flush=True)


def render_terminated(failure: TrainerError) -> bytes:
    """`Terminated` as JSON of at most 4096 bytes; a message that is too long loses its end, then the hint does."""
    message, hint = _encodable(failure.message), _encodable(failure.hint)
    while True:
        said = Terminated(reason=failure.reason, message=message[:4096], hint=hint[:4096])
        data = json.dumps(said.to_wire()).encode()
        excess = len(data) - TERMINATION_LOG_BYTES
        if excess <= 0:
            return data
        if len(message) > 200:
            message = _shorten(message, max(200, len(message) - max(excess // 12, 1) - 1))
        else:
            hint = _shorten(hint, len(hint) - max(excess // 12, 1) - 1)


def _encodable(text: str) -> str:
    """File names that are no UTF-8 come as lone surrogates, which JSON in UTF-8 can't carry."""
    return text.encode(errors="backslashreplace").decode()


def _shorten(text: str, length: int) -> str:
    return text[: max(length - 1, 0)].rstrip("…") + "…"
