"""The local cluster as one process: its state folder, its life in the background, its start and stop."""
