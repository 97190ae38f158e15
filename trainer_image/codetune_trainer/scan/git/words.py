"""What git's own words mean for a source. Pure; the texts are those of git 2.36 and later, ssh and the large hosts."""

import re
from urllib.parse import urlsplit

from codetune_trainer.errors import (
    AuthenticationFailed,
    DiskFull,
    HostKeyChanged,
    HostKeyUnknown,
    HostUnreachable,
    RevisionNotFound,
    SourceUnavailable,
)
from codetune_trainer.scan.git.running import Damaged, OtherObjectFormat, shorten
from codetune_trainer.scan.git.urls import Remote

_DENIED = re.compile(
    r"Authentication failed|could not read (Username|Password)|terminal prompts disabled|Permission denied"
    r"|error: 40[13]\b|Access denied|HTTP Basic"
)
_KEY_CHANGED = re.compile(r"REMOTE HOST IDENTIFICATION HAS CHANGED|REVOKED HOST KEY|host key .* has changed", re.I)
_KEY_UNKNOWN = re.compile(r"Host key verification failed|host key is known for")
_FINGERPRINT = re.compile(r"\b(SHA256:[A-Za-z0-9+/]{43})")
_NO_SUCH_OBJECT = re.compile(
    r"not our ref|couldn't find remote ref|no such remote ref|unadvertised object|does not exist|not a valid object"
)
_NOT_OFFERED = re.compile(r"does not support shallow|shallow capabilities|filter '[^']*' not supported|invalid filter")
_NO_CONNECTION = re.compile(
    r"Could not resolve|Failed to connect to|Couldn't connect to|[Cc]onnect to host .* port|Connection timed out after"
)
_OTHER_FORMAT = re.compile(r"mismatched algorithms")
_FULL = re.compile(r"No space left on device|Disk quota exceeded")
_DAMAGED = re.compile(r"bad object|corrupt|invalid index-pack|loose object|packfile .* cannot|unable to read")


def lacks_feature(said: str) -> bool:
    """Whether the server gives no shallow or partial histories."""
    return _NOT_OFFERED.search(said) is not None


def explain(said: str, remote: Remote) -> Exception:
    """The error that git's words stand for.

    Args:
        said: What git wrote before it ended.
        remote: What it was asked to read.
    """
    text = shorten(said)
    if _FULL.search(said):
        hint = (
            "Give the claim codetune-artifacts more space, or delete FineTunes and Projects that nobody needs; where "
            "the store is a bucket, raise store.size in the operator's settings."
        )
        return DiskFull(f"A volume is full: {remote.shown} can't be fetched. {text}", hint)
    if _KEY_CHANGED.search(said):
        return _explain_changed(said, remote)
    if _KEY_UNKNOWN.search(said):
        message = f"{remote.shown}: `known_hosts` in the Secret has no key of {remote.authority}."
        return HostKeyUnknown(message, how_to_know_a_host(remote))
    if _DENIED.search(said):
        hint = "Check that the repository exists and that the Secret in credentialsSecretRef may read it."
        return AuthenticationFailed(f"{remote.shown} asks for other credentials: {text}", hint)
    if _NO_SUCH_OBJECT.search(said) and "repository" not in said:
        return RevisionNotFound(f"{remote.shown}: {text}", "Set git.revision to one that exists.")
    if _OTHER_FORMAT.search(said):
        return OtherObjectFormat(text)
    if _DAMAGED.search(said):
        return Damaged(text)
    hint = "Check the URL, and that the cluster's network and proxy let the scan reach it."
    kind = HostUnreachable if _NO_CONNECTION.search(said) else SourceUnavailable
    return kind(f"{remote.shown} can't be fetched: {text}", hint)


def how_to_know_a_host(remote: Remote) -> str:
    """How a server's key gets into a Secret."""
    parts = urlsplit(remote.host)
    scan = f"ssh-keyscan {f'-p {parts.port} ' if parts.port else ''}{parts.hostname}"
    return (
        f"Put the output of `{scan}` into the key `known_hosts` of the source's Secret, after comparing its "
        "fingerprint with the one that the server's operator publishes."
    )


def _explain_changed(said: str, remote: Remote) -> HostKeyChanged:
    shows = _FINGERPRINT.search(said)
    key = f"a key ({shows[1]})" if shows else "a key"
    message = f"{remote.shown}: {remote.authority} shows {key} that is not the one in `known_hosts` of the Secret."
    hint = f"If the server has a new key: {how_to_know_a_host(remote)} If not, somebody stands between."
    return HostKeyChanged(message, hint)
