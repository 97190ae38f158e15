"""Lists, reads and judges all files of all sources, over processes; takes over what an earlier scan knows.

What a verdict is, `rules` decide; what is written of it, `dataset` says.
"""
