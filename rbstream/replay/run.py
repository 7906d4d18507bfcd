"""One replay from paths to files: everything that can be refused is refused before the first packet is read."""

import functools
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rbstream import __version__
from rbstream.assembly import make_filter, make_scorer, open_bundle
from rbstream.errors import LimitError
from rbstream.filter import Filter
from rbstream.model.manifest import Bundle
from rbstream.output import PartFile
from rbstream.progress import Progress
from rbstream.replay.chunk import ChunkResult, Wanted, cut_chunks
from rbstream.replay.jobs import Results, Work, run_here, run_in_processes
from rbstream.replay.outputs import Output, open_output, spare_inputs
from rbstream.replay.rejects import rejects_header
from rbstream.replay.scores import Scores, open_scores
from rbstream.replay.sources import Inputs, Source, find_inputs
from rbstream.replay.summary import JUDGED_AT_THE_END, JUDGED_WHILE_RUNNING, Summary
from rbstream.report.collect import ReportData
from rbstream.settings import Settings


@dataclass(frozen=True)
class Request:
    """What is asked for: paths in, and names of the files out; None where not wanted."""

    paths: list[str]
    output: str | None = None
    scores: str | None = None
    rejects: str | None = None
    report: str | None = None

    def outputs(self) -> dict[str, str]:
        """Names of the files out, by flag."""
        named = {
            "-o": self.output, "--scores": self.scores, "--rejects": self.rejects, "--report": self.report
        }  # fmt: skip
        return {flag: path for flag, path in named.items() if path is not None}


def replay(request: Request, settings: Settings) -> tuple[Summary, LimitError | None]:
    """Score what is in the paths and write what was asked for.

    Returns what it added up to, and the limit that stopped it, if one did: then the annotated packets are not kept
    unless all were read, but scores, rejects and report are, to find out why.
    Raises UsageError for what can't be done, RbstreamError for faults of ours; then nothing is kept.
    """
    started, clock = datetime.now(UTC), time.monotonic()
    bundle = open_bundle(settings.model)
    passes = make_filter(settings, bundle)
    names = find_inputs(request.paths)
    spare_inputs(request.outputs(), names)
    wanted = Wanted(bool(request.output), bool(request.scores), bool(request.rejects), bool(request.report))
    load = functools.partial(make_scorer, bundle, settings.model)
    work = Work(load, passes, settings.limits, settings.batch.max_alerts, wanted)
    inputs, gate = Inputs(names, settings.limits), _Gate(settings.rejects.max_ratio)
    chunks, jobs = gate(cut_chunks(inputs)), settings.replay.jobs
    results = run_here(work, chunks) if jobs == 1 else run_in_processes(work, chunks, jobs)
    summary = Summary(about=_about(bundle, passes, settings))
    report = ReportData(passes.threshold) if request.report else None
    with ExitStack() as stack:
        files = _Files(request, names, stack)
        progress = stack.enter_context(Progress("replaying", inputs.total))
        limit = _collect(results, summary, report, files, progress, inputs, gate)
        summary.seconds = time.monotonic() - clock
        if report is not None and request.report is not None:
            _write_report(request.report, report, summary, request.paths, started)
        summary.files = files.commit(complete=limit is None)
    return summary, limit or _judged(summary, settings.rejects.max_ratio, JUDGED_AT_THE_END)


def _collect(
    results: Results,
    summary: Summary,
    report: ReportData | None,
    files: "_Files",
    progress: Progress,
    inputs: Inputs,
    gate: "_Gate",
) -> LimitError | None:
    """Write results as they come, until there are no more or too many alerts were rejected."""
    limit: LimitError | None = None
    with closing(results):
        for result, payload in results:
            if report is not None and result.report is not None:
                report.merge(result.report)
            summary.device = summary.device or result.device
            if limit is None:
                summary.add(result)
                files.write(result, payload)
                progress.show(summary.received, inputs.position, **summary.verdicts())
                limit = _judged(summary, gate.max_ratio, JUDGED_WHILE_RUNNING)
                gate.open = limit is None
    return limit


class _Gate:
    """Lets chunks in until it is closed; what is under way then comes out all the same, for the report."""

    def __init__(self, max_ratio: float) -> None:
        self.max_ratio = max_ratio
        self.open = True

    def __call__(self, chunks: Iterator[list[Source]]) -> Iterator[list[Source]]:
        for chunk in chunks:
            if not self.open:
                return
            yield chunk


def _judged(summary: Summary, max_ratio: float, at_least: int) -> LimitError | None:
    try:
        summary.judge(max_ratio, at_least)
    except LimitError as limit:
        return limit
    return None


class _Files:
    """The files of a run, all under temporary names until it is over; those of a run that fails are removed."""

    def __init__(self, request: Request, inputs: list[str], stack: ExitStack) -> None:
        self._report = request.report
        self._output: Output | None = None
        self._scores: Scores | None = None
        self._rejects: PartFile | None = None
        if request.output:
            others = [path for flag, path in request.outputs().items() if flag != "-o"]
            self._output = open_output(request.output, inputs + others)
            stack.callback(self._output.discard)
        if request.scores:
            self._scores = open_scores(request.scores)
            stack.callback(self._scores.discard)
        if request.rejects:
            self._rejects = PartFile(Path(request.rejects))
            stack.callback(self._rejects.discard)
            self._rejects.write(rejects_header())

    def write(self, result: ChunkResult, payload: memoryview) -> None:
        """A chunk's share of each."""
        if self._output is not None:
            self._output.write(result, payload)
        if self._scores is not None:
            self._scores.write(result.rows)
        if self._rejects is not None:
            self._rejects.write(b"".join(result.rejects))

    def commit(self, complete: bool) -> dict[str, Any]:
        """Give the files their names: annotated packets only if they are complete, the rest always."""
        return {
            "outputs": self._output.commit() if self._output is not None and complete else [],
            "scores": self._scores.commit() if self._scores is not None else None,
            "rejects": self._rejects.commit() if self._rejects is not None else None,
            "report": self._report,
        }


def _about(bundle: Bundle, passes: Filter, settings: Settings) -> dict[str, Any]:
    manifest = bundle.manifest
    return {
        "model": {
            "name": manifest.name,
            "version": manifest.version,
            "sha256": bundle.sha256,
            "survey": manifest.survey,
        },
        "precision": settings.model.precision,
        "threshold": passes.threshold,
        "where": passes.where.text if passes.where else None,
        "jobs": settings.replay.jobs,
    }


def _write_report(path: str, data: ReportData, summary: Summary, paths: list[str], started: datetime) -> None:
    from rbstream.report import page

    model = summary.about["model"]
    shown = page.Summary(
        title=", ".join(Path(name).name or name for name in paths),
        inputs=paths,
        received=summary.received,
        passed=summary.passed,
        filtered=summary.filtered,
        rejected=summary.rejected,
        seconds=summary.seconds,
        model_name=model["name"],
        model_version=model["version"],
        survey=model["survey"],
        threshold=summary.about["threshold"],
        where=summary.about["where"],
        device=summary.device,
        precision=summary.about["precision"],
        jobs=summary.about["jobs"],
        started=started.isoformat(timespec="seconds"),
        version=__version__,
    )
    page.write_report(path, data, shown)
