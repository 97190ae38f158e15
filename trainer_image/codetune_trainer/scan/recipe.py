"""`python -m codetune_trainer scan`, top to bottom: fetch the sources, judge their files, write the dataset, report."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np
import orjson
from codetune_api.contracts import ScanConfig, ScanResult
from codetune_api.project import FileCounts, FileType, Rejection, SourceStatus
from codetune_api.protocol import ResultEvent
from codetune_bucket.errors import BucketError
from codetune_bucket.mirroring import Mirror

from codetune_trainer.config import Places, inside, load_config, load_places
from codetune_trainer.errors import EmptyDataset, SourceError
from codetune_trainer.purge import prune_datasets
from codetune_trainer.reporting import Reporter
from codetune_trainer.scan.dataset.containing import find_contained
from codetune_trainer.scan.dataset.deciding import (
    Copies,
    choose_sides,
    find_copies,
    reject_containing,
    reject_low_quality,
)
from codetune_trainer.scan.dataset.ledger import DIGEST_BYTES, Ledger
from codetune_trainer.scan.dataset.summing import count_files, count_rejections, count_source, count_types
from codetune_trainer.scan.dataset.writing import DATASET, FILES, MANIFEST, SPILL, publish, work_folder, write_artifacts
from codetune_trainer.scan.judging.reading import find_licences, judge_all
from codetune_trainer.scan.judging.remembering import FOLDER as MEMORY
from codetune_trainer.scan.judging.remembering import digest_rules, load_memory, save_memory
from codetune_trainer.scan.judging.worker import Task
from codetune_trainer.scan.quality.measuring import Text, find_low_quality
from codetune_trainer.scan.rules.headers import cut_header
from codetune_trainer.scan.rules.judge import Judge, Origin
from codetune_trainer.scan.sources.preparing import Readable, prepare_all, prune_cache
from codetune_trainer.scan.sources.upload_tree import prune_uploads
from codetune_trainer.scan.storing import bring, keep_memory

_SECONDS_BETWEEN_EVENTS = 2.0
_SHOWN_TYPES = 5


def main() -> int:
    """Scan as the pod's configuration says; returns the exit code."""
    config = load_config(ScanConfig)
    reporter = Reporter(config.nonce)
    reporter.emit(ResultEvent(scan=scan(config, load_places(), reporter)))
    return 0


def scan(config: ScanConfig, places: Places, reporter: Reporter, workers: int | None = None) -> ScanResult:
    """Make the dataset of a Project.

    Args:
        config: What to scan and by which rules.
        places: The pod's folders.
        reporter: Gets a stage event as each stage begins.
        workers: Processes that read and judge; None: as many as there are cores.

    Raises:
        SourceError: No source can be used.
        EmptyDataset: No file is left to train on.
        InvalidParameters: A pattern or file type is no such thing.
    """
    judge = Judge(config.files, config.holdout)  # says what is wrong with the rules before anything is fetched
    cache = inside(places.store, config.cache, "cache")
    announce = partial(reporter.stage, "Fetching")
    mirror = places.mirror
    bring(config, mirror)
    sources, failed = prepare_all(config.sources, cache, places, announce, judge.wants_content, config.fetched)
    prune_cache(config.sources, cache)
    prune_uploads(config.sources, cache.parent / "uploads")
    synced_at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    with work_folder(inside(places.store, config.output, "output")) as work:
        task = _set_task(config, sources, work)
        remembered, rules = cache.parent / MEMORY, digest_rules(task)
        memory = load_memory(remembered, work.parent, rules)
        with judge_all(task, memory, workers, _Ticker(reporter).tick) as ledger:
            copies = find_copies(ledger.records, ledger.signatures_of, config.files, config.holdout.fraction)
            low_quality = find_low_quality(config, places, cache, _read_accepted(ledger, copies), reporter)
            reject_low_quality(ledger.records, copies, low_quality)
            sides = choose_sides(ledger.records, copies, config.holdout.fraction)
            contained = find_contained(ledger.records, sides, ledger.prints_from, partial(_read_compared, ledger))
            sides = reject_containing(copies, sides, contained)
            counts, rejections = count_files(ledger, sides), count_rejections(ledger, copies.reasons)
            file_types = count_types(ledger, sides, config.files.types)
            _check_not_empty(counts, rejections, file_types)
            reporter.stage("Writing", f"{counts.accepted} of {counts.total} files")
            statuses = _describe_sources(config, sources, failed, ledger, synced_at)
            made = work / DATASET
            artifacts = write_artifacts(made, ledger, copies, sides)
            revision, folder = publish(made, work.parent, artifacts, statuses, counts)
            mirror.push(folder.relative_to(places.store).as_posix(), MANIFEST)
            with _going_on("What is known of the files can't be kept for the next scan"):
                save_memory(remembered, ledger, sides, folder, artifacts[FILES], rules)
                keep_memory(config, mirror)
    if config.keep is not None:
        _prune(config, mirror, {revision, *config.keep})
    return ScanResult(
        revision=revision,
        uri=folder.relative_to(places.store).as_posix(),
        sources=statuses,
        file_types=file_types,
        files=counts,
        rejections=rejections,
    )


def _read_accepted(ledger: Ledger, copies: Copies) -> Iterator[Text]:
    """Digests of the files that are accepted so far, and what reads their texts."""
    for index in np.flatnonzero(copies.reasons == 0).tolist():
        yield bytes(ledger.records["digest"][index]).ljust(DIGEST_BYTES, b"\0"), partial(_read_text, ledger, index)


def _read_text(ledger: Ledger, index: int) -> str:
    text: str = orjson.loads(ledger.line(index))["text"]
    return text


def _read_compared(ledger: Ledger, index: int) -> bytes:
    """What of a text is compared with others."""
    return cut_header(_read_text(ledger, index).encode())


def _set_task(config: ScanConfig, sources: list[Readable], work: Path) -> Task:
    held_out = {source.name for source in config.sources if source.use == "HoldOut"}
    origins = [Origin(source.name, source.name in held_out) for source in sources]
    task = Task(sources, origins, config.files, config.holdout, work / SPILL)
    if not config.files.licenses.allow:
        return task
    licensed = [replace(origin, licences=find_licences(task, index)) for index, origin in enumerate(origins)]
    return replace(task, origins=licensed)


@dataclass
class _Ticker:
    """Says how far the reading is, not more often than a person can read."""

    reporter: Reporter
    next_at: float = 0.0

    def tick(self, read: int) -> None:
        """So many files are known now."""
        if time.monotonic() >= self.next_at:
            self.next_at = time.monotonic() + _SECONDS_BETWEEN_EVENTS
            self.reporter.stage("Scanning", f"{read} files read")


def _prune(config: ScanConfig, mirror: Mirror, keep: set[str]) -> None:
    """Remove datasets that nobody uses; the next scan tries again."""
    with _going_on("Old datasets can't be removed now"):
        for revision in prune_datasets(mirror, config.output, keep):
            print(f"Removed the dataset {revision}, which nobody uses.", flush=True)


@contextmanager
def _going_on(trouble: str) -> Iterator[None]:
    """What fails in here is said and no more: the new dataset is there whatever comes of it."""
    try:
        yield
    except (OSError, BucketError) as error:
        print(f"{trouble}: {error}", file=sys.stderr, flush=True)


def _check_not_empty(counts: FileCounts, rejections: list[Rejection], types: list[FileType]) -> None:
    if counts.trained:
        return
    if counts.accepted:
        raise EmptyDataset(*_say_all_held_out(counts, rejections))
    if not counts.total:
        raise EmptyDataset("The sources have no file at all.", "Check the sources' revision and path.")
    top = ", ".join(f"{row.reason} {row.files} (such as {row.examples[0]})" for row in rejections[:3])
    hint = "Name their types in files.types, or bring files back with files.include, e.g. `src/**`."
    message = f"None of the {counts.total} files was accepted: {top}. {_say_unmatched(types)}".strip()
    raise EmptyDataset(message, hint)


def _say_all_held_out(counts: FileCounts, rejections: list[Rejection]) -> tuple[str, str]:
    """Message and hint."""
    containing = next((row for row in rejections if row.reason == "ContainsHeldOut"), None)
    if containing is None:
        return (
            f"All {counts.accepted} accepted files are held out, by holdout.paths or by sources with use: HoldOut.",
            "Narrow holdout.paths, or set use: Train on a source, so that some files are left to train on.",
        )
    return (
        f"All {counts.accepted} accepted files are held out, and {containing.files} more contain held-out code, "
        f"such as {containing.examples[0]}.",
        "Exclude the held-out files that others contain (the report tells them), narrow holdout.paths, or add files.",
    )


def _say_unmatched(types: list[FileType]) -> str:
    """What `files.types` asks for and no file is of, and which types there are; empty when all of it is there."""
    lacking, there = [row for row in types if not row.files], [row for row in types if row.files]
    if not lacking:
        return ""
    asked = _list_some([row.type for row in lacking])
    found = _list_some([f"{row.type} {row.files}" for row in there])
    return f"No file is of these types in files.types: {asked}. There are: {found}."


def _list_some(names: list[str]) -> str:
    more = len(names) - _SHOWN_TYPES
    return ", ".join([*names[:_SHOWN_TYPES], *([f"{more} more"] if more > 0 else [])])


def _describe_sources(
    config: ScanConfig, ready: list[Readable], failed: dict[str, SourceError], ledger: Ledger, synced_at: str
) -> list[SourceStatus]:
    readable = {source.name: (number, source) for number, source in enumerate(ready)}
    statuses = []
    for source in config.sources:
        if source.name in failed:
            error = failed[source.name]
            message = f"{error.reason}: {error.message} {error.hint}".strip()
            statuses.append(SourceStatus(name=source.name, reason=error.reason, message=message))
            continue
        place, found = readable[source.name]
        number, size = count_source(ledger, place)
        status = SourceStatus(
            name=source.name,
            commit=found.commit,
            digest=found.digest,
            files=number,
            bytes=size,
            synced_at=synced_at,
            reason=found.reason,
            message=found.warning,
        )
        statuses.append(status)
    return statuses
