"""Judges every file of the sources, over as many processes as there are cores; what was judged before, not again.

Records are placed by the order of the listing, so the number of processes changes nothing about the dataset.
"""

import hashlib
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
import numpy.typing as npt

from codetune_trainer.cores import usable_cores
from codetune_trainer.errors import MORE_SCAN_MEMORY, OutOfMemory
from codetune_trainer.scan.judging import Task, Worker
from codetune_trainer.scan.ledger import Bookkeeper, Judgement, Ledger
from codetune_trainer.scan.licensing import LARGEST_BYTES, FolderLicences, collect, is_licence_name
from codetune_trainer.scan.records import UNSETTLED, Found
from codetune_trainer.scan.remembering import Memory
from codetune_trainer.scan.sources import Readable

BATCH_FILES = 256
BATCH_BYTES = 4 * 2**20
"""A batch ends when it has this many files or holds this much text, whichever comes first."""
FEW_BATCHES = 4
"""Up to so many, starting processes costs more than it saves."""
MAX_WORKERS = 16
_THREADS = Path("/proc/self/task")
_KILLED = "A process that judges files was killed, most likely because the pod ran out of memory."


class Batch(NamedTuple):
    """Files of one source that are to be judged."""

    source: int
    files: list[Found]
    identities: list[bytes]
    positions: npt.NDArray[np.int64]
    """Of each file, its place among all files of the scan."""


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
    with Bookkeeper(task.work / "signatures") as books:
        listing = _Listing(task, memory, books)
        batches = iter(listing)
        first = list(islice(batches, FEW_BATCHES + 1))
        count = workers or (1 if len(first) <= FEW_BATCHES else min(MAX_WORKERS, usable_cores()))
        judge = _judge_here if count == 1 else _judge_in_pool
        if memory is None or memory.is_whole():
            for batch, judgement in judge(task, chain(first, batches), count):
                books.add(batch.positions, judgement)
                tick(listing.total)
            return books.finish(listing.total)
    # Only now that the books are closed: both write the same file of signatures.
    return judge_all(task, None, workers, tick)


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


class _Listing:
    """Lists all sources, takes what is remembered into the books, and gives the rest in batches."""

    def __init__(self, task: Task, memory: Memory | None, books: Bookkeeper) -> None:
        self._task = task
        self._memory = memory
        self._books = books
        self.total = 0
        """Files listed so far."""

    def __iter__(self) -> Iterator[Batch]:
        for index, source in enumerate(self._task.sources):
            files: list[Found] = []
            identities: list[bytes] = []
            places: list[int] = []
            held = 0
            for found, identity, place in self._unknown(index, source):
                files.append(found)
                identities.append(identity)
                places.append(place)
                held += found.size
                if len(files) >= BATCH_FILES or held >= BATCH_BYTES:
                    yield Batch(index, files, identities, np.array(places, np.int64))
                    files, identities, places, held = [], [], [], 0
            if files:
                yield Batch(index, files, identities, np.array(places, np.int64))

    def _unknown(self, index: int, source: Readable) -> Iterator[tuple[Found, bytes, int]]:
        """The files of a source that nothing is remembered of, with their places."""
        listed = iter(source.list())
        while files := list(islice(listed, _LISTED_TOGETHER)):
            first = self.total
            self.total += len(files)
            identities = [identify(source, found) for found in files]
            known = self._recall(index, identities, first)
            for offset, (found, identity) in enumerate(zip(files, identities, strict=True)):
                if not known[offset]:
                    yield found, identity, first + offset

    def _recall(self, index: int, identities: list[bytes], first: int) -> npt.NDArray[np.bool_]:
        if self._memory is None:
            return np.zeros(len(identities), np.bool_)
        known, records, signatures = self._memory.recall(identities)
        records["source"] = index
        positions = first + np.flatnonzero(known)
        self._books.add_remembered(positions, records, signatures, self._memory.stores, self._memory.kinds)
        return known


_LISTED_TOGETHER = 1024


def identify(source: Readable, found: Found) -> bytes:
    """16 bytes that change when a file's verdict could; empty when nothing tells that it didn't.

    Args:
        source: Where the file is.
        found: As it was listed.
    """
    if found.stamp == UNSETTLED:
        return b""
    told = f"{source.name}\0{source.digest}\0{found.path}\0{found.size}\0{found.stamp}\0{found.obstacle}\0"
    return hashlib.blake2b(told.encode() + found.key, digest_size=16).digest()


def _judge_here(task: Task, batches: Iterable[Batch], _: int) -> Iterator[tuple[Batch, Judgement]]:
    worker = Worker(task)
    try:
        for batch in batches:
            yield batch, worker.run(batch.source, batch.files, batch.identities)
    finally:
        worker.close()


def _judge_in_pool(task: Task, batches: Iterable[Batch], count: int) -> Iterator[tuple[Batch, Judgement]]:
    context = multiprocessing.get_context(_start_method())
    with ProcessPoolExecutor(count, context, _set_task, (task,)) as pool:
        waiting: deque[tuple[Batch, Future[Judgement]]] = deque()
        try:
            for batch in batches:
                waiting.append((batch, pool.submit(_run_batch, batch.source, batch.files, batch.identities)))
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


def _await(waiting: deque[tuple[Batch, Future[Judgement]]]) -> tuple[Batch, Judgement]:
    batch, future = waiting.popleft()
    return batch, future.result()


_task: Task | None = None  # of a pool's process: the executor offers no other place for what a process keeps


def _set_task(task: Task) -> None:
    global _task
    _task = task


@cache
def _worker() -> Worker:
    """The worker of this process, made with its first batch: an error in the pool's initializer would not be told."""
    assert _task is not None
    return Worker(_task)


def _run_batch(source: int, files: list[Found], identities: list[bytes]) -> Judgement:
    return _worker().run(source, files, identities)
