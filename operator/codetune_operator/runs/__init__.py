"""What runs say about themselves, as values folded from their protocol lines: no I/O."""
