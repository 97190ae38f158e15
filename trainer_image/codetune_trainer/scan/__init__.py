"""The scan: sources → files → accepted or rejected, each with its reason → a dataset named by its content.

Layers, each importing only what stands above it: `rules` and what it uses judge one file, pure; `git_*`, `archive_*`
and `volumes` list and read files; `reading` brings both together over processes; `quality*` measures losses where asked
to; `deciding` settles what takes all files (duplicates, low quality, the held-out split), pure; `writing` makes the
dataset; `recipe` is the order of it all.
"""

from codetune_trainer.scan.recipe import main

__all__ = ["main"]
