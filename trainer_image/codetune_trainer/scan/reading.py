"""Judges every file of the sources, over as many processes as there are cores, in the order of their paths.

The order of the results, and with it the dataset, is that of the listing: the number of processes changes nothing.
"""

import multiprocessing
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import islice

from codetune_api.project import FileRules, Holdout

from codetune_trainer.scan.git_objects import BlobReader
from codetune_trainer.scan.records import Found, Judged
from codetune_trainer.scan.rules import READ_LIMIT_BYTES, Judge
from codetune_trainer.scan.sources import Readable
from codetune_trainer.scan.upload_tree import read_content
from codetune_trainer.scan.volumes import read_file

BATCH_FILES = 128
BATCH_BYTES = 4 * 2**20
"""A batch ends when it has this many files or holds this much text, whichever comes first."""
FEW_FILES = 1024
"""Below this, starting processes costs more than it saves."""
MAX_WORKERS = 16

Result = tuple[Judged, bytes]
"""A verdict, with the text of a file that is accepted so far."""


@dataclass
class Worker:
    """Reads and judges batches; each process has one."""

    sources: list[Readable]
    judge: Judge
    _blobs: dict[str, BlobReader] = field(default_factory=dict)

    def run(self, source_index: int, batch: list[Found]) -> list[Result]:
        """Judge one batch of one source."""
        source = self.sources[source_index]
        wanted = [found for found in batch if self.judge.wants_content(found)]
        contents = dict(zip((found.path for found in wanted), self._read(source, wanted), strict=True))
        return [self._judge(source.name, found, contents.get(found.path)) for found in batch]

    def close(self) -> None:
        """End the git processes."""
        for reader in self._blobs.values():
            reader.close()

    def _judge(self, source: str, found: Found, content: bytes | str | None) -> Result:
        if isinstance(content, str):
            found, content = Found(found.path, found.key, found.size, obstacle=content), None
        return self.judge.judge(source, found, content)

    def _read(self, source: Readable, wanted: list[Found]) -> Iterator[bytes | str]:
        if source.kind == "git":
            if source.name not in self._blobs:
                self._blobs[source.name] = BlobReader(source.root, source.environment or {})
            return self._blobs[source.name].read([found.key for found in wanted])
        if source.kind == "upload":
            return (read_content(source.root, found.key) for found in wanted)
        return (read_file(source.root, found.key, READ_LIMIT_BYTES) for found in wanted)


def judge_all(
    sources: list[Readable], files: FileRules, holdout: Holdout, workers: int | None = None
) -> Iterator[Result]:
    """The verdict on every file, sorted by path.

    Args:
        sources: In the order of their files' full paths.
        files: `spec.files`.
        holdout: `spec.holdout`.
        workers: Processes; None: as many as this one may use cores, but 1 when there are few files.
    """
    batches = _batch(sources)
    first = list(islice(batches, 1 + FEW_FILES // BATCH_FILES))
    few = sum(len(batch) for _, batch in first) < FEW_FILES
    count = workers or (1 if few else min(MAX_WORKERS, usable_cores()))
    chained = _chain(first, batches)
    if count == 1:
        return _judge_here(Worker(sources, Judge(files, holdout)), chained)
    return _judge_in_pool(sources, files, holdout, count, chained)


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


Batch = tuple[int, list[Found]]


def _batch(sources: list[Readable]) -> Iterator[Batch]:
    for index, source in enumerate(sources):
        batch: list[Found] = []
        held = 0
        for found in source.list():
            batch.append(found)
            held += found.size
            if len(batch) >= BATCH_FILES or held >= BATCH_BYTES:
                yield index, batch
                batch, held = [], 0
        if batch:
            yield index, batch


def _chain(first: list[Batch], rest: Iterator[Batch]) -> Iterator[Batch]:
    yield from first
    yield from rest


def _judge_here(worker: Worker, batches: Iterator[Batch]) -> Iterator[Result]:
    try:
        for index, batch in batches:
            yield from worker.run(index, batch)
    finally:
        worker.close()


def _judge_in_pool(
    sources: list[Readable], files: FileRules, holdout: Holdout, count: int, batches: Iterator[Batch]
) -> Iterator[Result]:
    # spawn: the same on every platform, and nothing of this process (threads, locks, open files) is inherited.
    context = multiprocessing.get_context("spawn")
    started = (sources, files.model_dump_json(), holdout.model_dump_json())
    with ProcessPoolExecutor(count, context, _start_worker, started) as pool:
        waiting: deque[Future[list[Result]]] = deque()
        try:
            for index, batch in batches:
                waiting.append(pool.submit(_run_batch, index, batch))
                if len(waiting) > 3 * count:  # bounded, so that memory does not grow with the number of files
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


_worker: Worker | None = None  # of a pool's process: the executor offers no other place for what a process keeps


def _start_worker(sources: list[Readable], files: str, holdout: str) -> None:
    global _worker
    judge = Judge(FileRules.model_validate_json(files), Holdout.model_validate_json(holdout))
    _worker = Worker(sources, judge)


def _run_batch(index: int, batch: list[Found]) -> list[Result]:
    assert _worker is not None
    return _worker.run(index, batch)
