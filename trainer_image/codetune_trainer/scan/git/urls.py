"""Which git URLs are taken, and what git is given for them. Pure but for resolving `file:///` below its root."""

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from codetune_trainer.errors import SourceUnavailable, UnsupportedSource
from codetune_trainer.scan.paths import say_why

_SCP_LIKE = re.compile(
    r"(?P<user>[A-Za-z0-9._][A-Za-z0-9._-]*)@(?P<host>[A-Za-z0-9][A-Za-z0-9.-]*):(?P<path>[^\s-][^\s]*)"
)
_HOST = re.compile(r"[A-Za-z0-9\[][A-Za-z0-9.:\[\]_-]*")
_FORMS = "Use https://HOST/PATH, ssh://USER@HOST/PATH or USER@HOST:PATH."


@dataclass(frozen=True)
class Remote:
    """A repository that git may be sent to."""

    url: str
    """As git gets it."""
    shown: str
    """As people read it."""
    protocol: str
    host: str
    """`protocol://host[:port]`; what credentials are bound to."""

    @property
    def authority(self) -> str:
        """`host[:port]`."""
        return self.host.partition("://")[2]

    @property
    def origin(self) -> str:
        """`host`, but the same for all spellings of it: in lower case, and with the port in any case."""
        usual = {"https": 443, "http": 80, "ssh": 22}.get(self.protocol, 0)
        parts = urlsplit(self.host)
        return f"{self.protocol}://{parts.hostname}:{parts.port or usual}"


def read_url(url: str, file_root: Path | None) -> Remote:
    """Check a repository's URL and say what git gets for it.

    Args:
        url: As in `sources[].git.url`.
        file_root: What `file:///` means; None: file URLs are refused.

    Raises:
        UnsupportedSource: The URL is of no form that is taken.
        SourceUnavailable: A file URL that leads nowhere.
    """
    if match := _SCP_LIKE.fullmatch(url):
        return Remote(url, url, "ssh", f"ssh://{match['host']}")
    scheme = url.partition("://")[0]
    if scheme == "file":
        return _read_file_url(url, file_root)
    if scheme not in {"http", "https", "ssh"} or any(ord(letter) <= 32 or ord(letter) == 127 for letter in url):
        raise UnsupportedSource(f"{url!r} is no URL that Codetune gives to git.", _FORMS)
    try:
        parts = urlsplit(url)
        usable = parts.port != 0
    except ValueError as error:
        raise UnsupportedSource(f"{url!r} is no URL: {error}.", _FORMS) from error
    if parts.password is not None or (parts.username is not None and scheme != "ssh"):
        shown = f"{scheme}://…@{parts.hostname}{parts.path}"
        hint = "Take them out of the URL and put them into a Secret: sources[].credentialsSecretRef."
        raise UnsupportedSource(f"The URL {shown} has credentials in it.", hint)
    host = parts.netloc.rpartition("@")[2]
    if not _HOST.fullmatch(host) or (parts.username or "").startswith("-") or len(parts.path) < 2 or not usable:
        raise UnsupportedSource(f"{url!r} names no host and repository.", _FORMS)
    return Remote(url, url, scheme, f"{scheme}://{host}")


def _read_file_url(url: str, file_root: Path | None) -> Remote:
    if file_root is None:
        hint = "On a cluster give an https or ssh URL; file URLs need the operator's setting `fileRoot`."
        raise UnsupportedSource(f"{url!r} is a file URL, and this operator has no `fileRoot`.", hint)
    path = PurePosixPath(unquote(url.removeprefix("file://")).lstrip("/"))
    if ".." in path.parts or not path.parts or "\0" in str(path):
        raise UnsupportedSource(f"{url!r} leaves its folder with `..` or names none.", "Write file:///PATH.")
    try:
        root = file_root.resolve()
        folder = (root / path).resolve()
        there = folder.is_dir()
    except (OSError, RuntimeError) as error:  # a name too long, links in a circle
        hint = "Check the path below the `fileRoot`."
        raise SourceUnavailable(f"{url!r} leads nowhere: {say_why(error)}.", hint) from error
    if not folder.is_relative_to(root):
        raise UnsupportedSource(f"{url!r} is a link that leaves the folder that `fileRoot` names.", "Copy it there.")
    if not there:
        raise SourceUnavailable(f"{url!r}: there is no folder {folder}.", "Check the path below the `fileRoot`.")
    return Remote(folder.as_uri(), url, "file", "file://")
