"""The model that is trained: loading, where LoRA goes, losses, one step, and the memory that it takes.

It knows no run: nothing here reads or writes a run's folder.
"""
