"""One process or many: the same chunks, the same results, in the same order.

Chunks are dealt round robin. A worker process reads, decodes, scores and annotates; the parent cuts and collects.
A chunk's payload (megabytes) comes back in a spool, a nameless file in memory that both have open, because a pipe
would cost a fifth of all CPU time.
"""

import mmap
import multiprocessing
import os
import queue
import signal
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import ForkProcess
from typing import BinaryIO, cast

from rbstream.assembly import make_pipeline
from rbstream.errors import RbstreamError
from rbstream.filter import Filter
from rbstream.memory import keep_freed_memory
from rbstream.pipeline import Scorer
from rbstream.replay.chunk import ChunkResult, Collector, Wanted
from rbstream.replay.sources import Source, load
from rbstream.report.collect import ReportData
from rbstream.settings import Limits

# Chunks that a worker may have: one that it decodes, one whose last batch is scored, one to go on with.
CHUNKS_AHEAD = 3


@dataclass(frozen=True)
class Work:
    """What every process needs to know.

    load_scorer: makes the scorer in the process that will use it; told whether it is the first to do so.
    """

    load_scorer: Callable[[bool], Scorer]
    passes: Filter
    limits: Limits
    max_alerts: int
    wanted: Wanted


Chunks = Iterator[list[Source]]
Results = Generator[tuple[ChunkResult, memoryview], None, None]


def run_here(work: Work, chunks: Chunks) -> Results:
    """Results of chunks in order, worked out in this process."""
    payload = bytearray()
    for parts, result in _results(work, chunks, first=True):
        for part in parts:
            payload += part
        if result is not None:
            with memoryview(payload) as view:
                yield result, view
            payload.clear()


def run_in_processes(work: Work, chunks: Chunks, jobs: int) -> Results:
    """The same from `jobs` processes. Raises RbstreamError where one of them fails or dies."""
    with closing(_Workers(work, jobs)) as workers:
        waiting: deque[int] = deque()
        for number, chunk in enumerate(chunks):
            if len(waiting) == jobs * CHUNKS_AHEAD:
                yield from workers.result(waiting.popleft())
            workers.deal(number, chunk)
            waiting.append(number)
        workers.finish()
        for number in waiting:
            yield from workers.result(number)
        for index in range(workers.started):
            yield from workers.result(index)


def _results(work: Work, chunks: Chunks, first: bool) -> Iterator[tuple[list[bytes], ChunkResult | None]]:
    """Payload a micro-batch at a time; with a chunk's last, its result."""
    keep_freed_memory()
    scorer = work.load_scorer(first)
    pipeline = make_pipeline(scorer, {"output": work.passes}, work.limits, work.max_alerts)
    loaded = ((load(source, work.limits) for source in chunk) for chunk in chunks)
    report = ReportData(work.passes.threshold) if work.wanted.report else None
    collector = Collector(scorer.manifest.version, work.wanted, report)
    for batch in pipeline.run(loaded):
        payload = collector.add(batch.outcomes)
        yield payload, collector.finish_chunk() if batch.ends_chunk else None
    yield [], ChunkResult(report=report, device=str(scorer.device))


class _Workers:
    """The parent's side: processes, a pipe to each, and a spool for each chunk that is under way."""

    def __init__(self, work: Work, jobs: int) -> None:
        self._work = work
        self._jobs = jobs
        self._spools = [_spool() for _ in range(jobs * CHUNKS_AHEAD)]
        self._pipes: list[Connection] = []
        self._processes: list[ForkProcess] = []

    @property
    def started(self) -> int:
        """How many processes there are: no more than chunks, as each takes a second and 300 MB to import torch."""
        return len(self._processes)

    def deal(self, number: int, chunk: list[Source]) -> None:
        """Hand a chunk to the worker whose turn it is."""
        if number < self._jobs:
            self._start(number)
        self._send(number, chunk)

    def _start(self, index: int) -> None:
        context = multiprocessing.get_context("fork")  # inherits the spools; nothing here has threads
        ours, theirs = context.Pipe()
        # Each child closes the ends that are not its own: where the parent dies, the children see it.
        others = [*self._pipes, ours]
        spools = self._spools[index :: self._jobs]
        process = context.Process(target=_work, args=(self._work, index == 0, theirs, others, spools), daemon=True)
        process.start()
        theirs.close()
        self._pipes.append(ours)
        self._processes.append(process)

    def finish(self) -> None:
        """Tell all workers that no chunk follows."""
        for index in range(self.started):
            self._send(index, None)

    def _send(self, number: int, chunk: list[Source] | None) -> None:
        # A worker that failed has closed its end; why it did is in the result that is read next.
        with suppress(BrokenPipeError, ConnectionResetError):
            self._pipes[number % self._jobs].send(chunk)

    def result(self, number: int) -> Results:
        """The result of a chunk; its payload is good until the caller goes on."""
        index = number % self._jobs
        try:
            result, size = self._pipes[index].recv()
        except (EOFError, OSError) as error:  # OSError: it died while it sent
            self._processes[index].join()
            code = self._processes[index].exitcode
            raise RbstreamError(f"a worker process died (exit code {code}); out of memory?") from error
        if isinstance(result, BaseException):
            raise result
        if not size:
            yield result, memoryview(b"")
            return
        with mmap.mmap(self._spools[number % len(self._spools)].fileno(), size, prot=mmap.PROT_READ) as mapped:
            view = memoryview(mapped)
            try:
                yield result, view
            finally:
                view.release()

    def close(self) -> None:
        """End the processes, whether they are done or not."""
        for process in self._processes:
            process.terminate()
        for process, pipe in zip(self._processes, self._pipes, strict=True):
            process.join()
            pipe.close()
        for spool in self._spools:
            spool.close()


def _work(work: Work, first: bool, pipe: Connection, others: list[Connection], spools: list[BinaryIO]) -> None:
    """A worker process: chunks from the pipe, results into it, until there are no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # there is nothing to clean up here
    for other in others:
        other.close()
    try:
        number = 0
        for payload, result in _results(work, _received(pipe), first):
            spool = spools[number % len(spools)]
            spool.writelines(payload)
            if result is not None:
                spool.flush()
                pipe.send((result, spool.tell()))
                number += 1
                spools[number % len(spools)].seek(0)  # written over: fresh memory costs more
    except (BrokenPipeError, ConnectionResetError):
        pass  # the parent is gone
    except RbstreamError as error:
        pipe.send((error, 0))
    except MemoryError:
        pipe.send((RbstreamError("a worker process ran out of memory; lower --jobs or the limits"), 0))
    except OSError as error:
        pipe.send((RbstreamError(f"a worker process can't hand over its results: {error}"), 0))


def _received(pipe: Connection) -> Iterator[list[Source]]:
    """Chunks as they come. A thread takes them off the pipe, so that the parent never waits to send one."""
    chunks: queue.SimpleQueue[list[Source] | None] = queue.SimpleQueue()  # at most CHUNKS_AHEAD are dealt

    def receive() -> None:
        try:
            while (chunk := pipe.recv()) is not None:
                chunks.put(chunk)
        except (EOFError, OSError):
            os._exit(1)  # the parent is gone; nobody waits for what is under way
        chunks.put(None)

    threading.Thread(target=receive, daemon=True).start()
    while (chunk := chunks.get()) is not None:
        yield chunk


def _spool() -> BinaryIO:
    """A file without a name: in memory where the system has such, else in the temporary folder."""
    if hasattr(os, "memfd_create"):
        return cast(BinaryIO, os.fdopen(os.memfd_create("rbstream"), "w+b"))
    return cast(BinaryIO, tempfile.TemporaryFile())
