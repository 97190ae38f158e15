"""A Team: its gateway, and which model answers for which of its projects. Pure."""

from codetune_operator.reconcile.team.deciding import reconcile

__all__ = ["reconcile"]
