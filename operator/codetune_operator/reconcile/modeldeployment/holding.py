"""Which ModelDeployments hold on to the artifacts of a FineTune that is being deleted. Pure.

One that names the FineTune holds it until that is edited; one that has found it by its labels lets go by itself, and
holds it only until its pods are told. One that is being deleted holds nothing, so that a namespace can go.
"""

from collections.abc import Iterable, Iterator

from codetune_operator.reconcile.plan import Obj


def find_holders(finetune: str, deployments: Iterable[Obj]) -> tuple[str, ...]:
    """Names of those ModelDeployments of its namespace that serve a FineTune; objects as the API server holds them."""
    return tuple(
        str(deployment["metadata"]["name"])
        for deployment in deployments
        if not deployment["metadata"].get("deletionTimestamp") and finetune in set(_served(deployment))
    )


def _served(deployment: Obj) -> Iterator[str]:
    """FineTunes that it is to serve, and those that its pods were last told of."""
    for adapter in (deployment.get("spec") or {}).get("adapters") or []:
        yield (adapter.get("fineTuneRef") or {}).get("name", "")
    for state in (deployment.get("status") or {}).get("adapters") or []:
        yield state.get("fineTune", "")
