"""What Prometheus is told: what the operator does, counted as it happens, and how resources are, read at each scrape.

Labels are names, namespaces and words of closed lists only: never a path, a file's name, a message or a secret.
"""
