"""The node of the local cluster: it schedules pods, runs their containers as processes and tells their status."""
