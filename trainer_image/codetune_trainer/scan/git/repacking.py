"""Drops what earlier commits left in a mirror, once it is worth the work.

`git gc` does not: it keeps every object of a pack that was fetched in part, needed or not.
"""

from codetune_trainer.scan.git.reading import Repository

_PACKS_BEFORE_CLEANING = 16
_NEXT = "refs/codetune/next"


def clean(repository: Repository) -> None:
    """Put what the refs name into one pack, and remove the others. Raises: GitError."""
    folder = repository.folder / "objects" / "pack"
    before = sorted(folder.glob("*.pack"))
    if len(before) <= _PACKS_BEFORE_CLEANING:
        return
    repository.run("update-ref", "-d", _NEXT)
    # What was left out of the fetches is missing, and that is no error.
    listed = repository.run("rev-list", "--all", "--objects", "--no-object-names", "--missing=allow-any")
    made = repository.run("pack-objects", "--quiet", str(folder / "pack"), data=listed.encode()).strip()
    (folder / f"pack-{made}.promisor").touch()  # tells git that what it names may be missing
    for pack in before:
        if pack.stem != f"pack-{made}":
            for file in sorted(folder.glob(f"{pack.stem}.*")):  # the index first: without it git looks for no pack
                file.unlink()
    # Not what a scan beside this one has just written and not named yet.
    repository.run("prune", "--expire=1.hour.ago")
