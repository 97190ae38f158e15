"""A small Kubernetes API server: what kubectl, kopf, Helm and the tests use of the real one, on one event loop."""
