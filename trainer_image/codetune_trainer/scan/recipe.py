"""`python -m codetune_trainer scan`, top to bottom: fetch the sources, judge their files, write the dataset, report."""

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from codetune_api.contracts import ScanConfig, ScanResult
from codetune_api.project import FileCounts, FileRules, Rejection, SourceStatus
from codetune_api.protocol import ResultEvent

from codetune_trainer.config import Places, inside, load_config, load_places
from codetune_trainer.errors import EmptyDataset, SourceError
from codetune_trainer.purge import prune_datasets
from codetune_trainer.reporting import Reporter
from codetune_trainer.scan.deciding import decide
from codetune_trainer.scan.languages import is_selected
from codetune_trainer.scan.quality import find_low_quality
from codetune_trainer.scan.reading import judge_all
from codetune_trainer.scan.records import Judged
from codetune_trainer.scan.rules import Judge
from codetune_trainer.scan.sources import Readable, prepare_all, prune_cache
from codetune_trainer.scan.summing import count_files, count_rejections, count_source, count_types
from codetune_trainer.scan.upload_tree import prune_uploads
from codetune_trainer.scan.writing import FILES, REPORT, Texts, publish, work_folder, write_files, write_report

_SECONDS_BETWEEN_EVENTS = 2.0


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
    Judge(config.files, config.holdout)  # says what is wrong with the rules before anything is fetched
    cache = inside(places.store, config.cache, "cache")
    sources, failed = prepare_all(config.sources, cache, places, lambda text: reporter.stage("Fetching", text))
    prune_cache(config.sources, cache)
    prune_uploads(config.sources, cache.parent / "uploads")
    synced_at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    with work_folder(inside(places.store, config.output, "output")) as work, Texts(work / "texts") as texts:
        files = _judge(config, sources, texts, workers, _Ticker(reporter))
        low_quality = find_low_quality(config, places, cache, _read_accepted(files, texts), reporter)
        duplicates = config.files.duplicates == "Allow"
        decided = decide(files, holdout=config.holdout, allow_duplicates=duplicates, low_quality=low_quality)
        counts, rejections = count_files(decided), count_rejections(decided)
        _check_not_empty(counts, rejections)
        reporter.stage("Writing", f"{counts.accepted} of {counts.total} files")
        statuses = _describe_sources(config, sources, failed, files, synced_at)
        artifacts = {FILES: write_files(work, decided, texts), REPORT: write_report(work, decided)}
        texts.close()
        revision, folder = publish(work, work.parent, artifacts, statuses, counts)
    if config.keep is not None:
        _prune(folder.parent, {revision, *config.keep})
    return ScanResult(
        revision=revision,
        uri=folder.relative_to(places.store).as_posix(),
        sources=statuses,
        file_types=count_types(decided, _selector(config.files)),
        files=counts,
        rejections=rejections,
    )


@dataclass
class _Ticker:
    """Says how far the reading is, not more often than a person can read."""

    reporter: Reporter
    next_at: float = 0.0

    def tick(self, read: int, accepted: int) -> None:
        """One more file was read."""
        if time.monotonic() >= self.next_at:
            self.next_at = time.monotonic() + _SECONDS_BETWEEN_EVENTS
            self.reporter.stage("Scanning", f"{read} files read, {accepted} accepted")


def _judge(
    config: ScanConfig, sources: list[Readable], texts: Texts, workers: int | None, ticker: _Ticker
) -> list[Judged]:
    files: list[Judged] = []
    accepted = 0
    held_out = {source.name for source in config.sources if source.use == "HoldOut"}
    ticker.tick(0, 0)
    for file, text in judge_all(sources, config.files, config.holdout, workers):
        if file.source in held_out:
            file = replace(file, held_out=True)
        files.append(file)
        if not file.reason:
            accepted += 1
            texts.add(text)
        ticker.tick(len(files), accepted)
    return files


def _read_accepted(files: list[Judged], texts: Texts) -> Iterator[tuple[bytes, bytes]]:
    """(digest, text) of the files that are accepted so far."""
    accepted = [file for file in files if not file.reason]
    digests = (file.digest for file in accepted)
    return zip(digests, texts.read(file.text_bytes for file in accepted), strict=True)


def _prune(output: Path, keep: set[str]) -> None:
    """Remove datasets that nobody uses. The new one is there whatever comes of it, and the next scan tries again."""
    try:
        removed = prune_datasets(output, keep)
    except OSError as error:
        print(f"Old datasets can't be removed now: {error}", file=sys.stderr, flush=True)
    else:
        for revision in removed:
            print(f"Removed the dataset {revision}, which nobody uses.", flush=True)


def _check_not_empty(counts: FileCounts, rejections: list[Rejection]) -> None:
    if counts.trained:
        return
    if counts.accepted:
        hint = "Narrow holdout.paths, or set use: Train on a source, so that some files are left to train on."
        raise EmptyDataset(
            f"All {counts.accepted} accepted files are held out, by holdout.paths or by sources with use: HoldOut.",
            hint,
        )
    if not counts.total:
        raise EmptyDataset("The sources have no file at all.", "Check the sources' revision and path.")
    top = ", ".join(f"{row.reason} {row.files} (such as {row.examples[0]})" for row in rejections[:3])
    hint = "Name their types in files.types, or bring files back with files.include, e.g. `src/**`."
    raise EmptyDataset(f"None of the {counts.total} files was accepted: {top}.", hint)


def _describe_sources(
    config: ScanConfig, ready: list[Readable], failed: dict[str, SourceError], files: list[Judged], synced_at: str
) -> list[SourceStatus]:
    readable: dict[str, Readable] = {source.name: source for source in ready}
    statuses = []
    for source in config.sources:
        if source.name in failed:
            error = failed[source.name]
            message = f"{error.reason}: {error.message} {error.hint}".strip()
            statuses.append(SourceStatus(name=source.name, reason=error.reason, message=message))
            continue
        found = readable[source.name]
        number, size = count_source(files, source.name)
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


def _selector(rules: FileRules) -> Callable[[str, str], bool]:
    return lambda language, name: is_selected(language, name, rules.types)
