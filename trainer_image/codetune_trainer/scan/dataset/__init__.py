"""From verdicts to a dataset: the columns that hold them, what takes all files at once, counts, and what is written.

It reads no source: texts come from the lines that were written when files were judged.
"""
