"""LowQuality: what a base model thinks of texts. It knows texts by their digests, and no source and no other rule.

torch loads with `model`, which is imported when there is something to measure, and only then.
"""
