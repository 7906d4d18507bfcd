"""How fast each stage is on your packets, beside the floor measured in the same run.

The floor is what no design can leave out: unzipping the stamps with libdeflate, and the network itself, bare
(without normalisation), frozen and optimised for inference, in float32, channels last, at its best batch size.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import deflate
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from rbstream.assembly import make_filter, make_pipeline, make_scorer, open_bundle
from rbstream.cutout import GZIP_MAGIC, decode_cutout
from rbstream.errors import UsageError
from rbstream.memory import keep_freed_memory
from rbstream.packet.alert import Packet, Rejected
from rbstream.packet.annotate import annotate
from rbstream.packet.reader import PacketReader
from rbstream.packet.survey import survey_named
from rbstream.pipeline import Pipeline
from rbstream.replay.sources import Inputs, find_inputs, load
from rbstream.settings import Settings

# Enough packets to see a night's variety, few enough to stay in memory.
MAX_SOURCES = 512
# The best of so many rounds: the first warm caches, a neighbour may disturb some.
ROUNDS = 9
BATCH_SIZES = (8, 16, 32, 64)
# Batches that the bare network is timed on; the whole night would only take longer.
FLOOR_ALERTS = 128


@dataclass(frozen=True)
class Timing:
    """Of one round, an alert: time on the clock and CPU time of all threads [us]."""

    wall: float
    cpu: float


def bench(paths: list[str], settings: Settings) -> dict[str, Any]:
    """Time the way of the packets in the paths (the first `MAX_SOURCES`), whole and by stage.

    `ratio`: CPU time of the whole way (read, locate, decode, normalise, score, filter, annotate) by the floor's.
    Raises UsageError where no packet can be scored.
    """
    from rbstream.model.bundle import BareNetwork

    keep_freed_memory()
    bundle = open_bundle(settings.model)
    scorer = make_scorer(bundle, settings.model)
    manifest, passes, limits = scorer.manifest, make_filter(settings, bundle), settings.limits
    reader = PacketReader(survey_named(manifest.survey), manifest.channels, passes.fields, limits)
    pipeline = make_pipeline(scorer, {"output": passes}, limits, settings.batch.max_alerts)
    sources = list(islice(Inputs(find_inputs(paths), limits), MAX_SOURCES))

    def read() -> list[Packet]:
        return [packet for source in sources if isinstance(packet := load(source, limits), Packet)]

    packets = read()
    # A triplet is good until the next batch only.
    scored = [(alert, triplet.copy()) for alert, _, triplet in _scored(pipeline, packets)]
    if not scored:
        raise UsageError("nothing to time: none of these packets could be scored")
    alerts, triplets = [alert for alert, _ in scored], np.stack([triplet for _, triplet in scored])
    stamps = [stamp for alert in alerts for path in alert.layout.cutouts if (stamp := alert.cutout(path))]
    zipped = [stamp for stamp in stamps if stamp.startswith(GZIP_MAGIC)]
    sample, network = _resized(triplets, FLOOR_ALERTS), BareNetwork(bundle)
    normalized = network.normalize(sample)
    size = settings.batch.max_alerts

    def way() -> None:
        for alert, drb, _ in _scored(pipeline, (load(source, limits) for source in sources)):
            annotate(alert, drb, manifest.version)

    n = len(alerts)
    stages: dict[str, tuple[Callable[[], Any], int]] = {
        "whole way": (way, n),
        "read": (read, n),
        "locate": (lambda: [item for packet in packets for item in reader.read(packet)], n),
        "cutouts": (lambda: [decode_cutout(stamp, limits) for stamp in stamps], n),
        "score": (lambda: [scorer.score(triplets[i : i + size]) for i in range(0, n, size)], n),
        "filter": (lambda: [passes.passes(0.5, alert.published(passes.fields, "")) for alert in alerts], n),
        "annotate": (lambda: [annotate(alert, 0.5, manifest.version) for alert in alerts], n),
        "floor: unzip": (lambda: [deflate.gzip_decompress(stamp) for stamp in zipped], n),
    }
    for batch in BATCH_SIZES:
        parts = network.batches(normalized, batch)
        stages[f"floor: network x{batch}"] = (lambda parts=parts: network.run(parts), FLOOR_ALERTS)  # type: ignore[misc]
    return _result(_best(stages), n, manifest.version, scorer)


def _scored(pipeline: Pipeline, packets: Any) -> Any:
    for batch in pipeline.run([packets]):
        for outcome in batch.outcomes:
            if not isinstance(outcome.item, Rejected):
                yield outcome.item, outcome.drb, outcome.triplet


def _resized(triplets: NDArray[np.float32], alerts: int) -> NDArray[np.float32]:
    return triplets[np.arange(alerts) % len(triplets)]


def _best(stages: Mapping[str, tuple[Callable[[], Any], int]]) -> dict[str, Timing]:
    """The best round of each stage. Stages take turns in every round, so that a busy spell hits them all."""
    best: dict[str, Timing] = {}
    for _ in range(ROUNDS):
        for name, (stage, alerts) in stages.items():
            wall, cpu = time.perf_counter(), time.process_time()
            stage()
            timing = Timing((time.perf_counter() - wall) / alerts * 1e6, (time.process_time() - cpu) / alerts * 1e6)
            best[name] = min(best.get(name, timing), timing, key=lambda each: each.cpu)
    return best


def _result(best: dict[str, Timing], alerts: int, version: str, scorer: Any) -> dict[str, Any]:
    networks = {name: timing for name, timing in best.items() if name.startswith("floor: network")}
    network = min(networks, key=lambda name: networks[name].cpu)
    floor = best["floor: unzip"].cpu + best[network].cpu
    way = best["whole way"]
    return {
        "alerts": alerts,
        "model": version,
        "device": str(scorer.device),
        "precision": scorer.precision,
        "stages": {
            name: {"microseconds": round(timing.wall, 2), "cpu_seconds": round(timing.cpu / 1e6, 9)}
            for name, timing in best.items()
        },
        "total_cpu_seconds": round(way.cpu / 1e6, 9),
        "floor_cpu_seconds": round(floor / 1e6, 9),
        "floor_network": network.removeprefix("floor: network x") + " alerts a batch",
        "ratio": round(way.cpu / floor, 4),
        "alerts_per_second": round(1e6 / way.wall, 1),
    }


def show(result: dict[str, Any], console: Console) -> None:
    """The same for a person."""
    table = Table(box=None, pad_edge=False)
    table.add_column("stage")
    table.add_column("us an alert", justify="right")
    table.add_column("CPU us an alert", justify="right")
    for name, timing in result["stages"].items():
        table.add_row(name, f"{timing['microseconds']:.1f}", f"{timing['cpu_seconds'] * 1e6:.1f}")
    console.print(table)
    console.print(
        f"{result['alerts']} alerts, {result['model']} on {result['device']} in {result['precision']}: "
        f"{result['total_cpu_seconds'] * 1e6:.0f} CPU us an alert, {result['ratio']:.2f} times the floor of "
        f"{result['floor_cpu_seconds'] * 1e6:.0f}",
        highlight=False,
    )
