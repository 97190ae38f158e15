"""The operator's own key: a Secret in its own namespace, made once, from which tokens are derived."""

import asyncio
import base64
import secrets

from codetune_api.metadata import labels

from codetune_operator.cluster.connecting import Cluster
from codetune_operator.cluster.kinds import SECRET
from codetune_operator.errors import ConflictError, MissingError, PermanentError

KEY_SECRET = "codetune-operator-key"
_FIELD = "key"


async def load_operator_key(cluster: Cluster, *, namespace: str) -> bytes:
    """The key, made when there is none.

    Raises:
        OperatorError: The server refused, could not be reached, or holds a Secret without a key.
    """
    path = SECRET.path(namespace, KEY_SECRET)
    try:
        secret = await asyncio.to_thread(cluster.send, "GET", path)
    except MissingError:
        secret = await _make_key(cluster, namespace)
    encoded = (secret.get("data") or {}).get(_FIELD)
    if not encoded:
        message = f"Secret {namespace}/{KEY_SECRET} has no {_FIELD!r}: delete it, and the operator makes a new one."
        raise PermanentError(message)
    return base64.b64decode(encoded)


async def _make_key(cluster: Cluster, namespace: str) -> dict[str, object]:
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": KEY_SECRET, "namespace": namespace, "labels": labels("operator", "operator", {})},
        "type": "Opaque",
        "data": {_FIELD: base64.b64encode(secrets.token_bytes(32)).decode()},
    }
    try:
        return await asyncio.to_thread(cluster.send, "POST", SECRET.path(namespace), body=secret)
    except ConflictError:
        # Another process was faster; its key is as good.
        return await asyncio.to_thread(cluster.send, "GET", SECRET.path(namespace, KEY_SECRET))
