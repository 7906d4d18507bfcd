"""Kills workers again and again, and looks whether anything is lost or twice in the end.

    python tests/kafka/torture.py --packets 20000 --partitions 8 --workers 3 --kills 30 --kills-in-transaction 10

Starts a broker of its own unless given one, and publishes packets, a share of them malformed, until after the last
kill. Workers run under launcher.py, are killed at random steps while they hold uncommitted messages, and are started
again. At the end the topics must hold every alert exactly once, in agreement with each other and with what
`rbstream replay` says.
"""

import argparse
import itertools
import json
import random
import signal
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

# Run by its path, it has to say where the other tests' modules are.
sys.path.insert(1, str(Path(__file__).parents[1]))

from board import AT_LEAST_ONCE, IN_TRANSACTION, STEPS
from broker import Broker
from check import Place, differences, gather
from cluster import Cluster
from fleet import End, Fleet
from packets import make_packets, templates
from publisher import Publisher, TransactionalPublisher
from tiny import environment, rbstream, write_tiny
from waiting import wait_until
from worker import variables, worker_settings

TOPICS = ("in", "out", "dead", "scores")
# What is published only after the last kill, so that the input outlasts it.
LAST_SHARE = 0.05
# What is published in bursts up to the last kill; the rest trickles, and has to last for as long.
KILLS_SHARE = 0.8
# What goes into a second topic.
SECOND_SHARE = 0.2
SHOWN = 20


@dataclass
class Report:
    """What came of a torture; `failures` says what didn't hold."""

    options: dict[str, Any]
    seconds: dict[str, float] = field(default_factory=dict)
    published: int = 0
    alerts: dict[str, int] = field(default_factory=dict)
    kills: dict[str, int] = field(default_factory=dict)
    kills_in_transaction: int = 0
    sigterms: int = 0
    added: int = 0
    removed: int = 0
    restarts: int = 0
    ended_by_themselves: list[dict[str, Any]] = field(default_factory=list)
    lag: dict[str, int] = field(default_factory=dict)
    open_transactions: dict[str, str] = field(default_factory=dict)
    differences: dict[str, int] = field(default_factory=dict)
    audit: dict[str, int] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)


class Torture:
    """One run. source, sink: where, and the same where it is one cluster. brokers: that may be stopped and started."""

    def __init__(
        self, options: argparse.Namespace, source: Cluster, sink: Cluster, brokers: list[Broker], folder: Path
    ) -> None:
        self._options = options
        self._source = source
        self._sink = sink
        self._brokers = brokers
        self._folder = folder
        self._draw = random.Random(options.seed)
        self._name = f"torture-{int(time.time())}"
        self._names = {word: f"{self._name}-{word}" for word in (*TOPICS, "in2", "group")}
        self._inputs = [self._names["in"]]
        self._second: Publisher | None = None
        self._bundle = write_tiny(folder / "tiny.pt")
        self._fleet = Fleet(folder, self._settings, options.program, self._draw)
        self._steps = STEPS if options.delivery == "exactly-once" else AT_LEAST_ONCE
        self._report = Report(vars(options))

    def run(self) -> Report:
        options, report, names = self._options, self._report, self._names
        self._source.create(names["in"], partitions=options.partitions)
        self._sink.create(names["out"], names["dead"], names["scores"], partitions=4)
        packets = make_packets(templates(self._folder), options.packets, options.malformed, options.seed)
        second = int(options.packets * SECOND_SHARE) if options.grow else 0
        self._of_second = list(itertools.islice(packets, second))
        first = options.packets - second
        hold = max(1, int(first * LAST_SHARE))
        kind = TransactionalPublisher if options.transactional_input else Publisher
        publisher = kind(self._source.servers, names["in"], packets, first, options.rate, hold)
        clock = time.monotonic()
        try:
            for number in range(options.workers):
                self._fleet.add(f"w{number}")
            publisher.start()
            self._harass(publisher)
            report.seconds["until the last kill"] = round(time.monotonic() - clock, 1)
            assert publisher.sent <= first - hold, "the input ended before the last kill"
            publishers = [publisher, *([self._second] if self._second else [])]
            for each in publishers:
                each.finish()
            self._settle(publishers)
            self._stop()
            report.seconds["until all was done"] = round(time.monotonic() - clock, 1)
        finally:
            self._fleet.close()
        published = [place for each in publishers for place in each.published]
        report.published = len(published)
        report.failures += [failure for each in publishers for failure in each.failures]
        if report.published != options.packets:
            report.failures.append(f"only {report.published} of {options.packets} packets were published")
        self._check(published)
        report.seconds["with the check"] = round(time.monotonic() - clock, 1)
        return report

    def _settings(self, name: str) -> dict[str, Any]:
        options = self._options
        properties = {"source.group_protocol": options.protocol}
        if options.protocol == "classic":
            # The shortest that brokers allow by default: a member that is gone holds its partitions so long.
            properties["source.properties.session.timeout.ms"] = "6000"
        if not options.dynamic:
            properties["source.instance_id"] = f"{self._name}-{name}"
        if options.grow:
            properties["source.topics"] = f"^{self._names['in']}2?$"
        if self._sink is not self._source:
            properties["sink.bootstrap_servers"] = self._sink.servers
        settings = worker_settings(self._source.servers, self._bundle, self._names | {"id": f"{self._name}-{name}"})
        return settings | properties | {"delivery": options.delivery}

    def _harass(self, publisher: Publisher) -> None:
        """Kill as often as asked for, and in between what else was asked for."""
        options, draw = self._options, self._draw
        steps = self._plan()
        turns = self._turns()
        for number, step in enumerate(steps):
            publisher.let_go(KILLS_SHARE * (number + 1) / (len(steps) + 1))
            self._fleet.pass_time(draw.uniform(0.2, 1.8) * options.pause)
            for what in turns.get(number, ()):
                getattr(self, f"_{what}")()
            self._kill(step)

    def _plan(self) -> list[str]:
        """The step of each kill: as many in a transaction as asked for, the rest anywhere."""
        options, draw = self._options, self._draw
        inside = [IN_TRANSACTION[n % len(IN_TRANSACTION)] for n in range(options.kills_in_transaction)]
        steps = inside + [draw.choice(self._steps) for _ in range(options.kills - len(inside))]
        draw.shuffle(steps)
        return steps

    def _turns(self) -> dict[int, list[str]]:
        """What happens before which kill, beside."""
        options, draw = self._options, self._draw
        turns: dict[int, list[str]] = {}
        for number in range(options.broker_restarts):
            turns.setdefault((number + 1) * options.kills // (options.broker_restarts + 1), []).append("restart")
        if options.grow:
            turns.setdefault(options.kills // 2, []).append("grow")
        for _ in range(options.sigterm):
            turns.setdefault(draw.randrange(options.kills), []).append("sigterm")
        if options.elastic:
            for number in range(1, options.kills, 2):
                turns.setdefault(number, []).append("resize")
        return turns

    def _kill(self, step: str) -> None:
        end = self._fleet.strike(step, signal.SIGKILL)
        if end is None:  # say, no alerts are left over after a commit: anything else, then
            end = self._fleet.strike("produced", signal.SIGKILL)
        assert end is not None, f"no worker came to {step} or to produced with uncommitted alerts: see {self._folder}"
        assert end.status == -signal.SIGKILL, end
        assert end.held > 0, end
        self._report.kills[step] = self._report.kills.get(step, 0) + 1
        self._report.kills_in_transaction += end.in_transaction
        self._say(f"killed {end.name} at {step} with {end.held} uncommitted alerts")

    def _sigterm(self) -> None:
        steps = [step for step in ("begun", "produced", "sent", "taken") if step in self._steps]
        end = self._fleet.strike(self._draw.choice(steps), signal.SIGTERM)
        assert end is not None, f"no worker came to be told to end: see {self._folder}"
        self._ended_well(end)
        self._report.sigterms += 1

    def _resize(self) -> None:
        """One worker more, or one less: between one and two more than there were at first."""
        most, first = self._options.workers + 2, self._options.workers
        if len(self._fleet) < most and (len(self._fleet) <= max(1, first - 1) or self._draw.random() < 0.5):
            self._report.added += 1
            name = f"x{self._report.added}"
            self._fleet.add(name)
            self._say(f"added {name}")
        else:
            self._ended_well(self._fleet.remove_any())
            self._report.removed += 1

    def _restart(self) -> None:
        """A broker, by SIGTERM and SIGKILL in turn; of two, each in both ways."""
        number, many = self._report.restarts, len(self._brokers)
        broker, killed = self._brokers[number % many], (number + (number // 2 if many > 1 else 0)) % 2 == 1
        self._say(f"{'killing' if killed else 'stopping'} the broker at {broker.servers}")
        broker.kill() if killed else broker.stop()
        self._fleet.pass_time(self._draw.uniform(1, 4))
        broker.start()
        self._report.restarts += 1

    def _grow(self) -> None:
        """One more partition, and a second topic."""
        topic, second = self._names["in"], self._names["in2"]
        self._source.grow(topic, self._options.partitions + 1)
        self._source.create(second, partitions=2)
        self._inputs.append(second)
        packets, options = self._of_second, self._options
        self._second = Publisher(self._source.servers, second, packets, len(packets), options.rate, 1)
        self._second.let_go(1.0)
        self._second.start()
        self._say(f"{topic} has one more partition, and {second} was made")

    def _lag(self) -> dict[tuple[str, int], int]:
        group = self._names["group"]
        if self._sink is self._source or self._options.delivery == "at-least-once":
            return self._source.lag(group, *self._inputs)
        return self._source.lag(group, *self._inputs, kept=self._sink, prefix=f"{group}.progress.")

    def _settle(self, publishers: list[Publisher]) -> None:
        """Until everything is published, and taken in."""
        while any(each.is_alive() for each in publishers):
            self._fleet.supervise()
        self._say(f"published {sum(len(each.published) for each in publishers)}")
        deadline = time.monotonic() + self._options.patience
        while lag := self._lag():
            if time.monotonic() > deadline:
                break
            self._fleet.pass_time(0.5)
        self._report.lag = {f"{topic}/{partition}": offsets for (topic, partition), offsets in lag.items()}
        if lag:
            self._report.failures.append(f"a lag is left after {self._options.patience:g} s: {self._report.lag}")

    def _stop(self) -> None:
        for end in self._fleet.stop():
            self._ended_well(end)
        mine = [end for end in self._fleet.ends if end.why == "by itself"]
        self._report.ended_by_themselves = [asdict(end) for end in mine]
        # A worker may leave to its supervisor what librdkafka calls fatal, and nothing else.
        excused = self._options.broker_restarts or self._options.protocol == "consumer"
        for end in mine:
            if end.status != 1 or not excused:
                self._report.failures.append(f"{end.name} ended by itself with {end.status}: {end.last_words}")

    def _ended_well(self, end: End) -> None:
        self._say(f"{end.name} ended with {end.status} ({end.why}, {end.held} uncommitted alerts)")
        if end.status != 0:
            self._report.failures.append(f"{end.name} ended with {end.status} on SIGTERM ({end.why}): {end.last_words}")

    def _check(self, published: list[Place]) -> None:
        report = self._report

        def left_open() -> dict[str, str]:
            found = self._sink.open_transactions()
            return {name: state for name, state in found.items() if name.startswith(self._name)}

        try:
            wait_until(lambda: not left_open(), "no transaction open", 15, pause=1)
        except AssertionError:
            report.open_transactions = left_open()
            report.failures.append(f"transactions are left open: {report.open_transactions}")
        seen = gather(self._sink, self._names, published, self._bundle, self._folder, self._source, self._inputs)
        report.alerts = {"expected": len(seen.expected), "scores": len(seen.scores)}
        report.alerts |= {"output": len(seen.outputs), "dead letters": len(seen.dead)}
        found = differences(seen, repeats=self._options.delivery == "at-least-once")
        for name, keys in found.items():
            report.differences[name] = len(keys)
            report.failures.append(f"{name}: {len(keys)}: {[tuple(key) for key in keys[:SHOWN]]}")
        self._audit()
        if not self._brokers:
            self._source.delete(*self._inputs)
            self._sink.delete(*(self._names[word] for word in TOPICS[1:]))

    def _audit(self) -> None:
        """What `rbstream audit` says of the same topics."""
        done = rbstream("audit", "--json", env=environment(**variables(self._settings("audit"))), timeout=1800)
        told = json.loads(done.stdout or "{}")
        self._report.audit = told.get("counts", {})
        if done.returncode:
            found = told.get("differences", done.stderr)
            self._report.failures.append(f"rbstream audit ends with {done.returncode}: {found[:SHOWN]}")

    def _say(self, text: str) -> None:
        if not self._options.quiet:
            print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def torture(arguments: list[str]) -> Report:
    """Run with the command line's arguments."""
    options = parser().parse_args(arguments)
    if options.delivery == "at-least-once":
        options.kills_in_transaction = 0
    folder = Path(tempfile.mkdtemp(prefix="rbstream-torture-")) if options.folder is None else Path(options.folder)
    folder.mkdir(parents=True, exist_ok=True)
    if options.bootstrap_servers:
        assert not options.broker_restarts, "only a broker of its own can be restarted"
        source, sink = ([*map(Cluster, options.bootstrap_servers)] * 2)[:2]
        return Torture(options, source, sink, [], folder).run()
    brokers: list[Broker] = []
    try:
        for _ in range(2 if options.two_clusters else 1):
            brokers.append(Broker())
            brokers[-1].start()
        return Torture(options, brokers[0], brokers[-1], brokers, folder).run()
    finally:
        for broker in brokers:
            broker.close()


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--packets", type=int, default=20_000)
    made.add_argument("--malformed", type=float, default=0.05, help="share")
    made.add_argument("--partitions", type=int, default=8)
    made.add_argument("--workers", type=int, default=3)
    made.add_argument("--kills", type=int, default=30, help="by SIGKILL, of workers that hold uncommitted alerts")
    made.add_argument(
        "--kills-in-transaction", type=int, default=10, help="of these, between begin and commit; none at least once"
    )
    made.add_argument("--pause", type=float, default=3.0, help="between kills, on average [s]")
    made.add_argument("--rate", type=float, default=150.0, help="of publishing [1/s]")
    made.add_argument("--protocol", choices=("classic", "consumer"), default="classic")
    made.add_argument("--dynamic", action="store_true", help="members without an instance id")
    made.add_argument("--delivery", choices=("exactly-once", "at-least-once"), default="exactly-once")
    made.add_argument("--broker-restarts", type=int, default=0, help="by SIGTERM and SIGKILL in turn")
    made.add_argument("--elastic", action="store_true", help="workers come and go")
    made.add_argument("--sigterm", type=int, default=0, help="workers ended in the middle of a batch")
    made.add_argument("--transactional-input", action="store_true", help="published in transactions, some aborted")
    made.add_argument("--patience", type=float, default=180.0, help="for the lag to get to 0 at the end [s]")
    made.add_argument("--two-clusters", action="store_true", help="source and sink are brokers of their own")
    made.add_argument("--grow", action="store_true", help="a partition more and a second topic half-way")
    made.add_argument(
        "--bootstrap-servers", nargs="+", help="of a cluster that runs, or of source and sink; own brokers by default"
    )
    made.add_argument("--seed", type=int, default=1)
    made.add_argument("--program", default="rbstream", help="what to torture: rbstream, or a script like it")
    made.add_argument("--folder", help="for logs and files; a temporary one by default, which is kept")
    made.add_argument("--quiet", action="store_true")
    return made


def main() -> int:
    report = torture(sys.argv[1:])
    print(json.dumps(asdict(report), indent=2))
    for failure in report.failures:
        print(f"FAILED: {failure}", file=sys.stderr)
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
