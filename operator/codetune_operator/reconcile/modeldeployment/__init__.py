"""A ModelDeployment: its server, the adapters that it should hold, and what its pods say. Pure."""

from codetune_operator.reconcile.modeldeployment.deciding import reconcile

__all__ = ["reconcile"]
