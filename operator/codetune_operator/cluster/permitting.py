"""What the operator itself may do, as the API server tells it."""

import asyncio

from codetune_operator.cluster.connecting import Cluster
from codetune_operator.cluster.kinds import Kind
from codetune_operator.errors import MissingError, PermanentError

_PATH = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


async def may_watch(cluster: Cluster, *, kind: Kind, namespace: str) -> bool:
    """Whether a kind may be watched in a namespace; also where nobody may ask, as a hardened cluster has it.

    Raises:
        OperatorError: The server could not be reached.
    """
    asked = {"verb": "watch", "group": kind.group, "resource": kind.plural, "namespace": namespace}
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": asked},
    }
    try:
        answer = await asyncio.to_thread(cluster.send, "POST", _PATH, body=review)
    except (PermanentError, MissingError):
        return True
    return bool(answer["status"]["allowed"])
