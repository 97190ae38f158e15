"""From a dataset's files to packed sequences, in the order of training. It knows no model and no run."""
