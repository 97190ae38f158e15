"""The key that a server asks the gateway for. Read for each request, so that a new one counts at once."""

from pathlib import Path

from codetune_api.gateway import Upstream
from codetune_server.authenticating import read_keys

from codetune_gateway.errors import Failure, UpstreamUnavailable


def find_key(root: Path | None, upstream: Upstream) -> str | None:
    """The first key of a server; None when it asks for none.

    Args:
        root: Folder with a folder for each Secret of keys.
        upstream: The server.

    Raises:
        UpstreamUnavailable: It asks for one, and there is none that a header can carry.
    """
    if upstream.keys is None:
        return None
    try:
        lines = read_keys(root / upstream.keys) if root else []
    except OSError:
        lines = []
    keys = [line.decode() for line in lines if line.isascii() and line.decode().isprintable()]
    if not keys:
        message = (
            f"The ModelDeployment {upstream.deployment} asks for an API key, and the Secret {upstream.keys} of its "
            "apiKeysSecretRef holds none that the gateway can read: give it one key a line."
        )
        reason = f"no key in the Secret {upstream.keys}"
        raise UpstreamUnavailable(message, upstream.deployment, Failure.NO_KEY, reason)
    return keys[0]
