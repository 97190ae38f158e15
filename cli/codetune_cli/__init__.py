"""`kubectl codetune`: what people do with Codetune that takes more than `kubectl apply`.

Thin over the Kubernetes API and, through its service proxy, the namespace's store service; all rights are the caller's.
"""
