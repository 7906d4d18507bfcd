"""`rbstream bench`, and `rbstream bench kafka`."""

import argparse
import json
import math
from typing import Any

from rich.console import Console
from rich.table import Table

from rbstream.arguments import add_command, add_model_settings, add_setting, add_settings, given_settings
from rbstream.errors import ExitStatus, UsageError


def add_bench(commands: Any) -> None:
    """The commands, with their arguments. A file called kafka is ./kafka for the first of them."""
    command = add_command(
        commands, "bench", _bench, "Time each stage on your packets, beside the floor in the same run."
    )
    command.add_argument("paths", nargs="+", metavar="PATH")
    _add_common(command)
    command = add_command(
        commands, BENCH_KAFKA, _bench_kafka,
        "Measure the worker on a Kafka, on topics of its own: rate, CPU time, latency, memory.",
    )  # fmt: skip
    command.add_argument("paths", nargs="*", metavar="PATH", help="Packets (default: simulated ones)")
    add_setting(command, "--bootstrap-servers", "source.bootstrap_servers", metavar="HOST:PORT")
    command.add_argument(
        "--sink-bootstrap-servers", dest="sink.bootstrap_servers", metavar="HOST:PORT",
        help="Another Kafka: measures exactly-once from one to the other, too",
    )  # fmt: skip
    command.add_argument(
        "--alerts", type=int, default=20_000, metavar="N", help="For rates and CPU times (default: %(default)s)"
    )
    command.add_argument(
        "--rate", type=float, default=100.0, metavar="N", help="Alerts a second for latencies (default: %(default)g)"
    )
    command.add_argument(
        "--warm-up", type=float, default=30.0, metavar="S", help="Before latencies are taken (default: %(default)g s)"
    )
    command.add_argument(
        "--seconds", type=float, default=60.0, metavar="S",
        help="In which latencies are taken; 0 leaves them out (default: %(default)g s)",
    )  # fmt: skip
    command.add_argument(
        "--soak", type=int, default=200_000, metavar="N",
        help="Alerts through one worker whose memory is watched; 0 leaves that out (default: %(default)s)",
    )  # fmt: skip
    _add_common(command)


BENCH_KAFKA = "bench kafka"


def _add_common(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="Print JSON, and nothing else")
    add_model_settings(command)
    add_settings(command)


def _bench(options: argparse.Namespace) -> int:
    from rbstream.bench import bench, show

    result = bench(options.paths, given_settings(options))
    if options.json:
        print(json.dumps(result, indent=1))
    else:
        show(result, Console())
    return ExitStatus.DONE


def _bench_kafka(options: argparse.Namespace) -> int:
    from rbstream.kafka.bench import Request, bench_kafka

    wrong = options.alerts < 1 or options.soak < 0 or not 0 < options.rate < math.inf
    if wrong or not (0 <= options.warm_up < math.inf and 0 <= options.seconds < math.inf):
        raise UsageError("--alerts and --rate have to be above 0; --warm-up, --seconds and --soak 0 or more")
    request = Request(options.paths, options.alerts, options.rate, options.warm_up, options.seconds, options.soak)
    result = bench_kafka(request, given_settings(options))
    if options.json:
        print(json.dumps(result, indent=1))
    else:
        _show(result, Console())
    return ExitStatus.DONE


def _show(result: dict[str, Any], console: Console) -> None:
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for title in ("alerts/s", "CPU us an alert", "by the floor", "p50 ms", "p99 ms", "max ms"):
        table.add_column(title, justify="right")
    for name in ("pipeline", "copy", "exactly-once", "at-least-once", "two-clusters"):
        step = result[name]
        if step is None:
            continue
        latency = step.get("latency")
        ratio = f"{step['ratio']:.2f}" if "ratio" in step else ""
        times = [f"{latency[each] * 1000:.0f}" for each in ("p50", "p99", "max")] if latency else []
        table.add_row(name, f"{step['alerts_per_second']:,.0f}", f"{step['cpu_seconds'] * 1e6:,.0f}", ratio, *times)
    console.print(table)
    told = [
        f"{result['model']} on {result['device']} in {result['precision']}; {result['packets']} packets of "
        f"{result['packet_bytes']:,} bytes; the floor is pipeline + copy; that of two-clusters is a worker within one "
        "that runs beside it"
    ]
    soak = result["soak"]
    if soak is not None:
        first, last, most = (soak[name] / (1 << 20) for name in ("first_bytes", "last_bytes", "max_bytes"))
        growth = soak["growth_bytes_per_100000"] / (1 << 20)
        told.append(
            f"memory over {soak['alerts']:,} alerts: {first:,.0f} MiB after a tenth of them, {last:,.0f} at the end, "
            f"{most:,.0f} at most; {growth:+.1f} MiB per 100,000 alerts"
        )
    console.print(*told, sep="\n", highlight=False, markup=False, soft_wrap=True)
