"""Letting go of all that is held in a namespace, without looking at what it needs: it goes away in any case."""

import logging

from codetune_operator.cluster.connecting import Cluster
from codetune_operator.cluster.kinds import FINETUNE, PROJECT
from codetune_operator.cluster.listing import list_objects
from codetune_operator.cluster.patching import drop_finalizer
from codetune_operator.errors import ConflictError

logger = logging.getLogger(__name__)

_HELD = (PROJECT, FINETUNE)
"""Kinds that carry the finalizer."""


async def release(cluster: Cluster, *, namespace: str) -> None:
    """Take the finalizer off everything in a namespace. Raises: OperatorError."""
    for kind in _HELD:
        for obj in (await list_objects(cluster, kind=kind, namespace=namespace)).items:
            try:
                if await drop_finalizer(cluster, live=obj) is None:
                    continue
            except ConflictError:
                continue  # changed meanwhile: the next comparison looks again
            told = (kind.name, namespace, obj["metadata"]["name"])
            logger.warning("%s %s/%s is let go of with its namespace; what it has in a bucket stays there.", *told)
