"""The Secret of a git source: which keys it must have, looked at before anything is asked."""

import base64
from dataclasses import dataclass
from pathlib import Path

from codetune_trainer.errors import AuthenticationFailed, HostKeyUnknown
from codetune_trainer.scan.git.credentials import read_login
from codetune_trainer.scan.git.urls import Remote
from codetune_trainer.scan.git.words import how_to_know_a_host

_SSH_HINT = "Use a kubernetes.io/ssh-auth Secret that also has `known_hosts`."
_HTTP_HINT = (
    "Use a kubernetes.io/basic-auth Secret, or an Opaque one with the key `token` (and `username`, where the server "
    "wants a certain one)."
)


@dataclass(frozen=True)
class Credentials:
    """The keys of a source's Secret, as files."""

    folder: Path

    def has(self, key: str) -> bool:
        """Whether the Secret has that key."""
        return (self.folder / key).is_file()

    def authorization(self) -> str:
        """The HTTP header that user name and password make."""
        return f"Basic {base64.b64encode(':'.join(read_login(self.folder)).encode()).decode()}"


def check_credentials(source: str, folder: Path | None, remote: Remote) -> Credentials | None:
    """The source's Secret, when it has what the URL's protocol needs.

    Args:
        source: Name of the source.
        folder: Where the Secret's keys are; None when the source names no Secret.
        remote: What it is for.

    Raises:
        AuthenticationFailed: The Secret lacks keys, or has some that contradict each other.
        HostKeyUnknown: It has no `known_hosts`, so that the server can't be told from another one.
    """
    ssh = remote.protocol == "ssh"
    if folder is None:
        if ssh:
            raise AuthenticationFailed(f"Source {source!r} has an ssh URL and no credentialsSecretRef.", _SSH_HINT)
        return None
    credentials = Credentials(folder)
    if ssh:
        _check_ssh(source, credentials, remote)
    elif remote.protocol in {"http", "https"}:
        _check_http(source, credentials)
    return credentials


def _check_ssh(source: str, credentials: Credentials, remote: Remote) -> None:
    if not credentials.has("ssh-privatekey"):
        raise AuthenticationFailed(f"The Secret of source {source!r} has no `ssh-privatekey`.", _SSH_HINT)
    if not credentials.has("known_hosts"):
        message = f"The Secret of source {source!r} has no `known_hosts`, and no server is believed without."
        raise HostKeyUnknown(message, how_to_know_a_host(remote))


def _check_http(source: str, credentials: Credentials) -> None:
    keys = [key for key in ("password", "token") if credentials.has(key)]
    if not keys:
        raise AuthenticationFailed(f"The Secret of source {source!r} has no `password` and no `token`.", _HTTP_HINT)
    if len(keys) > 1:
        message = f"The Secret of source {source!r} has both `password` and `token`, so which is meant is not clear."
        raise AuthenticationFailed(message, "Take one of them out of it.")
    for key in ("username", *keys):
        if credentials.has(key) and not _is_line((credentials.folder / key).read_bytes().rstrip(b"\r\n")):
            message = f"The key `{key}` in the Secret of source {source!r} is not one line of UTF-8 text."
            raise AuthenticationFailed(message, _HTTP_HINT)


def _is_line(value: bytes) -> bool:
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return False
    return bool(text) and not any(ord(letter) < 32 for letter in text)
