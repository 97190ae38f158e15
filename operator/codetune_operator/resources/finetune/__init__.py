"""What a FineTune makes: the training Job, and the Job that merges its adapter. Pure."""
