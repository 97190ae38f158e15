"""Judges every file of the sources, over as many processes as there are cores; what was judged before, not again.

Records are placed by the order of the listing, so the number of processes changes nothing about the dataset.
"""

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import cache
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from codetune_trainer.cores import usable_cores
from codetune_trainer.errors import MORE_SCAN_MEMORY, OutOfMemory
from codetune_trainer.scan.dataset.ledger import Bookkeeper, Ledger
from codetune_trainer.scan.judging.identities import Known
from codetune_trainer.scan.judging.remembering import Memory
from codetune_trainer.scan.judging.worker import BATCH_FILES, Findings, Task, Worker, cut_batches
from codetune_trainer.scan.records import Found
from codetune_trainer.scan.rules.licensing import LARGEST_BYTES, FolderLicences, collect, is_licence_name

KNOWN_BATCH_FILES = 1024
"""Files of a batch where most are known."""
FEW_BATCHES = 4
"""Up to so many, starting processes costs more than it saves."""
MAX_WORKERS = 16
_THREADS = Path("/proc/self/task")
_KILLED = "A process that judges files was killed, most likely because the pod ran out of memory."


class Batch(NamedTuple):
    """Files of one source."""

    source: int
    first: int
    """The place of its first file among all files of the scan; the others follow."""
    files: list[Found | bytes]


def judge_all(
    task: Task, memory: Memory | None, workers: int | None = None, tick: Callable[[int], None] = lambda judged: None
) -> Ledger:
    """The verdict on every file, sorted by path.

    Args:
        task: What to judge by which rules.
        memory: What an earlier scan by the same rules found.
        workers: Processes; None: as many as this one may use cores, but 1 when there is little to do.
        tick: Called with how many files are known, now and then.
    """
    with Bookkeeper(task.work / "signatures", task.work / "prints") as books:
        batches = _list_batches(task, BATCH_FILES if memory is None else KNOWN_BATCH_FILES)
        first = list(islice(batches, FEW_BATCHES + 1))
        count = workers or (1 if len(first) <= FEW_BATCHES else min(MAX_WORKERS, usable_cores()))
        judge = _judge_here if count == 1 else _judge_in_pool
        known = None if memory is None else memory.known
        total = 0
        for batch, findings in judge(task, known, chain(first, batches), count):
            if memory is not None:
                memory.check_meanwhile()
            _keep(books, batch, findings, memory)
            total = batch.first + len(batch.files)
            tick(total)
        if memory is None or memory.is_whole():
            return books.finish(total)
    # Only now that the books are closed: both write the same file of signatures.
    return judge_all(task, None, workers, tick)


def _keep(books: Bookkeeper, batch: Batch, findings: Findings, memory: Memory | None) -> None:
    positions = batch.first + np.arange(len(batch.files))
    known = findings.known >= 0
    if memory is not None and known.any():
        records, signatures, prints = memory.recall(findings.known[known])
        records["source"] = batch.source
        books.add_remembered(positions[known], records, signatures, prints, memory.stores, memory.kinds)
    new = positions[~known]
    for judgement in findings.judgements:
        books.add(new[: len(judgement.records)], judgement)
        new = new[len(judgement.records) :]


def find_licences(task: Task, source_index: int) -> FolderLicences:
    """What the licence files of a source say."""
    worker = Worker(task)
    try:
        return collect(_read_licences(worker, source_index))
    finally:
        worker.close()


def _read_licences(worker: Worker, source_index: int) -> Iterator[tuple[str, bytes]]:
    named = filter(_is_licence_file, worker.task.sources[source_index].list(is_licence_name))
    while batch := list(islice(named, BATCH_FILES)):
        for found, content in zip(batch, worker.read(source_index, batch), strict=True):
            if isinstance(content, bytes):
                yield found.path, content


def _is_licence_file(found: Found) -> bool:
    return not found.obstacle and found.size <= LARGEST_BYTES and is_licence_name(found.name)


def _list_batches(task: Task, most: int) -> Iterator[Batch]:
    """All files in batches of at most so many."""
    first = 0
    for index, source in enumerate(task.sources):
        for files in cut_batches(source.walk(), _known_size, most):
            yield Batch(index, first, files)
            first += len(files)


def _known_size(entry: Found | bytes) -> int:
    """Bytes of a file; 0 before anybody looked at it."""
    return entry.size if isinstance(entry, Found) else 0


def _judge_here(task: Task, known: Known | None, batches: Iterable[Batch], _: int) -> Iterator[tuple[Batch, Findings]]:
    worker = Worker(task, known)
    try:
        for batch in batches:
            yield batch, worker.run(batch.source, batch.files)
    finally:
        worker.close()


def _judge_in_pool(
    task: Task, known: Known | None, batches: Iterable[Batch], count: int
) -> Iterator[tuple[Batch, Findings]]:
    context = multiprocessing.get_context(_start_method())
    with ProcessPoolExecutor(count, context, _set_task, (task, known)) as pool:
        waiting: deque[tuple[Batch, Future[Findings]]] = deque()
        try:
            for batch in batches:
                waiting.append((batch, pool.submit(_run_batch, batch.source, batch.files)))
                if len(waiting) > 3 * count:  # bounded, so that memory does not grow with the number of files
                    yield _await(waiting)
            while waiting:
                yield _await(waiting)
        except BrokenProcessPool as error:  # what Python raises itself comes as it is: only a signal breaks the pool
            raise OutOfMemory(_KILLED, MORE_SCAN_MEMORY) from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _start_method() -> str:
    """How processes start: a fork inherits what is imported, but also any lock that another thread holds just then."""
    alone = _THREADS.is_dir() and len(list(_THREADS.iterdir())) == 1
    return "fork" if alone else "spawn"


def _await(waiting: deque[tuple[Batch, Future[Findings]]]) -> tuple[Batch, Findings]:
    batch, future = waiting.popleft()
    return batch, future.result()


_given: tuple[Task, Known | None] | None = None  # of a pool's process: the executor has no other place for it


def _set_task(task: Task, known: Known | None) -> None:
    global _given
    _given = (task, known)


@cache
def _worker() -> Worker:
    """The worker of this process, made with its first batch: an error in the pool's initializer would not be told."""
    assert _given is not None
    return Worker(*_given)


def _run_batch(source: int, files: list[Found | bytes]) -> Findings:
    return _worker().run(source, files)
