"""The Codetune operator: `handlers` observe and execute, `reconcile` decides, `resources` build, `cluster` does I/O."""
