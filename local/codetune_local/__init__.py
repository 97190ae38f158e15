"""A Kubernetes cluster for one machine: API server, controllers and a kubelet that runs pods as processes."""
