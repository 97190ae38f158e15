"""What a model scores on held-out files, and whether the tuned one is better than its base."""
