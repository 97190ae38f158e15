"""A part of a dataset's training files, so that every candidate trains on the same tokens: all of them, once."""

import hashlib
import json
from pathlib import Path
from typing import Any

from codetune_api.contracts import DatasetManifest
from codetune_api.digests import FileEntry, digest_value


def write_subset(dataset: Path, folder: Path, tokenizer: Any, tokens: int) -> int:
    """Write a dataset of files that hold at most `tokens` tokens, by digest; returns how many they hold.

    Held-out files are left out: candidates are measured by `holdout.py`, after the run.
    """
    rows = [json.loads(line) for line in (dataset / "files.jsonl").read_text().splitlines()]
    chosen, found = [], 0
    for row in sorted((row for row in rows if row["split"] == "train"), key=lambda row: row["sha256"]):
        size = len(tokenizer(row["text"])["input_ids"]) + 1
        if found + size <= tokens:
            chosen.append(row)
            found += size
    data = "".join(json.dumps(row) + "\n" for row in chosen).encode()
    folder.mkdir()
    (folder / "files.jsonl").write_bytes(data)
    manifest = DatasetManifest.model_validate_json((dataset / "manifest.json").read_text())
    revision = digest_value([[row["path"], row["sha256"], row["split"]] for row in chosen])
    entry = FileEntry(sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))
    changed = manifest.model_copy(update={"revision": revision, "artifacts": {"files.jsonl": entry}})
    (folder / "manifest.json").write_text(changed.model_dump_json(by_alias=True))
    return found
