"""A Project: its scans, when they are due, and what became of its sources. Pure."""

from codetune_operator.reconcile.project.deciding import reconcile

__all__ = ["reconcile"]
