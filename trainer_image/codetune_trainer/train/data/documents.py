"""Reads a dataset folder: the accepted files with their text."""

import hashlib
from collections.abc import Iterable, Set
from dataclasses import dataclass, field, replace
from pathlib import Path

from codetune_api.contracts import DatasetFile, DatasetManifest
from codetune_api.finetune import DatasetSource
from codetune_api.infilling import Origin
from pydantic import ValidationError

from codetune_trainer.errors import DatasetMissing, EmptyDataset
from codetune_trainer.manifests import is_intact


@dataclass(frozen=True)
class Dataset:
    """The files of one revision."""

    train: list[DatasetFile]
    holdout: list[DatasetFile]
    sources: list[DatasetSource] = field(default_factory=list)
    """Where they are from."""
    digests: frozenset[str] = frozenset()
    """Of the texts that are trained on, as `digest_text` has them."""


def load_dataset(folder: Path, revision: str) -> Dataset:
    """Read and verify a dataset. Raises: DatasetMissing, EmptyDataset."""
    try:
        manifest = DatasetManifest.model_validate_json((folder / "manifest.json").read_bytes())
    except (OSError, ValidationError) as error:
        hint = "Rescan the Project (annotation codetune.dev/rescan), then make a new FineTune."
        raise DatasetMissing(f"The dataset {revision} is not in the store.", hint) from error
    # Only what is read is checked: a rescan that finds the same files writes report.jsonl anew beside them.
    files = {name: entry for name, entry in manifest.artifacts.items() if name == "files.jsonl"}
    if manifest.revision != revision or not files or not is_intact(folder, files):
        text = f"The dataset in the store is not {revision}: its files were changed."
        raise DatasetMissing(text, "Rescan the Project, then make a new FineTune.")
    with (folder / "files.jsonl").open(encoding="utf-8") as lines:
        entries = [DatasetFile.model_validate_json(line) for line in lines]
    train = [file for file in entries if file.split == "train"]
    holdout = [file for file in entries if file.split != "train"]
    sources = [DatasetSource(name=found.name, commit=found.commit, digest=found.digest) for found in manifest.sources]
    dataset = Dataset(train, holdout, sources, frozenset(digest_text(file.text) for file in train))
    check_apart(dataset)
    return replace(dataset, holdout=choose_unseen(holdout, dataset.digests))


def choose_unseen(files: Iterable[DatasetFile], digests: Set[str]) -> list[DatasetFile]:
    """The files whose text is not among these, not even with other white space at the ends of its lines."""
    return [file for file in files if digest_text(file.text) not in digests]


def digest_text(text: str) -> str:
    """The same for texts that differ in white space at the ends of their lines only."""
    lines = "\n".join(line.rstrip() for line in text.strip().splitlines())
    return hashlib.sha256(lines.encode(errors="surrogatepass")).hexdigest()


def check_apart(dataset: Dataset) -> None:
    """No held-out content may be trained on. Raises: DatasetMissing, EmptyDataset."""
    if not dataset.train:
        hint = "Select more file types or lower holdout.fraction in the Project."
        raise EmptyDataset("The dataset has no file to train on.", hint)
    both = {file.sha256 for file in dataset.train} & {file.sha256 for file in dataset.holdout}
    if both:
        text = f"{len(both)} files are both trained on and held out, so that an evaluation would mean nothing."
        raise EmptyDataset(text, "Rescan the Project with files.duplicates: Reject.")


def find_origin(file: DatasetFile) -> Origin:
    """Repository and path of a file: datasets put the name of the source before the path in it."""
    repository, _, path = file.path.partition("/")
    return Origin(repository, path)
