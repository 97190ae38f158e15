"""The Kubernetes client as controllers and kubelet see it; the embedded API server's in-process client fulfils it."""

from codetune_local.inprocess import ApiError, Client, Event

__all__ = ["ApiError", "Client", "Event"]
