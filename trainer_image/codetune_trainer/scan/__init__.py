"""The scan: sources → files → accepted or rejected, each with its reason → a dataset named by its content.

`recipe` is the order of it all. The folders below it, each importing only what stands further down in this list (`make
lint` checks it):

- `judging`: lists, reads and judges files over processes, and remembers the verdicts for the next scan
- `quality`: measures losses under a base model, where asked to
- `dataset`: settles what takes all files (duplicates, the held-out split), counts, writes
- `sources`: makes every source ready to be read
- `git`, `archive`: fetch and read what such sources have
- `rules`: judge one file, pure

`records`, `digesting` and `paths` are the values that all of them speak of.
"""

from codetune_trainer.scan.recipe import main

__all__ = ["main"]
