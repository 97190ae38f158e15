"""A FineTune: its run, what it goes on from, and its merged model. Pure."""

from codetune_operator.reconcile.finetune.deciding import reconcile

__all__ = ["reconcile"]
