"""Debian's Prometheus scrapes real workers: every documented metric is there, and moves as what happens says."""

import io
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import fastavro
import pytest
from board import Board
from broker import Broker
from fleet import LAUNCHER
from needs import require
from packets import Made, changed, make_packets, templates
from scene import PARTITIONS, PATIENCE, Scene
from waiting import wait_until

from rbstream.assembly import make_pipeline, make_scorer, open_bundle
from rbstream.filter import Filter
from rbstream.metrics import Metrics, Observed, observe
from rbstream.packet.alert import Origin, Packet
from rbstream.settings import Limits, Model

DOCS = Path(__file__).parents[2] / "docs/metrics.md"
SHORT_SESSION = {"source.properties.session.timeout.ms": 6000, "source.properties.heartbeat.interval.ms": 1000}


@pytest.fixture(scope="module")
def make_scene(
    broker: Broker, bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Scene]]:
    scenes: list[Scene] = []

    def make(word: str, **settings: object) -> Scene:
        scenes.append(Scene(broker, bundle, tmp_path_factory.mktemp(word), word, settings))
        return scenes[-1]

    yield make
    for scene in scenes:
        scene.close()


@pytest.fixture(scope="module")
def packets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    """Ever more of them: one in ten malformed, one in ten scored upstream, one in ten with a masked pixel, one at the
    chip's edge."""
    return changed(make_packets(templates(tmp_path_factory.mktemp("night"), alerts=30), 100_000, malformed=0.1))


def take(packets: Iterator[Made], number: int) -> list[Made]:
    return [next(packets) for _ in range(number)]


def expected(bundle: Path, made: Sequence[Made]) -> Observed:
    """What the pipeline makes of them without Kafka, as one batch."""
    model = Model(bundle=bundle, device="cpu")
    opened = open_bundle(model)
    passes = {"main": Filter(opened.manifest.threshold, None)}
    pipeline = make_pipeline(make_scorer(opened, model), passes, Limits(), len(made) * 2)
    chunk = [Packet(Origin("in", str(number)), each.content or b"") for number, each in enumerate(made)]
    (batch,) = pipeline.run([chunk])
    return observe(batch.outcomes, ["in"] * len(batch.outcomes))


@pytest.fixture(scope="module")
def settled(make_scene: Callable[..., Scene], packets: Iterator[Made]) -> tuple[Scene, Observed]:
    """A worker that has done 300 messages, and what was to be expected."""
    scene = make_scene("settled")
    scene.publish(take(packets, 300))
    wanted = expected(scene.bundle, scene.published)
    scene.start("one")
    scene.await_alerts("one", wanted.alerts.total())
    wait_until(lambda: not scene.broker.lag(scene.topic("group"), scene.topic("in")), "lag is 0", PATIENCE)
    scene.prometheus.await_value("sum(rbstream_consumer_lag_messages) + sum(rbstream_uncommitted_alerts)", 0)
    return scene, wanted


def test_alerts_are_those_that_the_pipeline_makes_without_kafka(settled: tuple[Scene, Observed]) -> None:
    scene, wanted = settled
    found = scene.by("rbstream_alerts_total", "verdict", "reason", "topic")
    assert found == {(*kind, scene.topic("in")): n for (*kind, _), n in wanted.alerts.items()}
    assert {verdict for verdict, *_ in found} == {"passed", "filtered", "rejected"}


def test_messages_are_those_that_a_reader_finds_in_the_topics(settled: tuple[Scene, Observed]) -> None:
    scene, _ = settled
    found = scene.by("rbstream_messages_total", "route", "topic")
    routes = {"main": scene.topic("out"), "dead_letters": scene.topic("dead"), "scores": scene.topic("scores")}
    assert found == {(route, topic): len(scene.broker.read_all(topic)) for route, topic in routes.items()}


def test_what_was_read_is_what_was_published(settled: tuple[Scene, Observed]) -> None:
    scene, _ = settled
    size = sum(len(each.content or b"") for each in scene.published)
    assert scene.by("rbstream_consumed_messages_total", "topic") == {(scene.topic("in"),): len(scene.published)}
    assert scene.by("rbstream_consumed_bytes_total", "topic") == {(scene.topic("in"),): size}


def test_scores_and_masks_are_counted_by_alert(settled: tuple[Scene, Observed]) -> None:
    scene, wanted = settled
    value = scene.prometheus.value
    assert value("rbstream_drb_count") == len(wanted.drb)
    assert value("rbstream_drb_sum") == pytest.approx(wanted.drb.sum(), rel=1e-5)
    assert value('rbstream_drb_difference_bucket{le="+Inf"}') == len(wanted.difference) > 0
    assert value("rbstream_masked_alerts_total") == wanted.masked > wanted.edge
    assert value("rbstream_edge_alerts_total") == wanted.edge > 0


def test_batches_stages_and_latencies_add_up(settled: tuple[Scene, Observed]) -> None:
    scene, wanted = settled
    value = scene.prometheus.value
    batches = value("rbstream_batch_wait_seconds_count")
    assert value("rbstream_batch_alerts_sum") == wanted.alerts.total()
    assert value("rbstream_batch_alerts_count") == batches
    assert value("rbstream_latency_seconds_count") == len(scene.published)
    assert (value("rbstream_latency_seconds_sum") or 0) > 0
    counts = scene.by("rbstream_stage_seconds_count", "stage")
    assert counts.pop(("deliver",)) <= value('rbstream_transactions_total{outcome="committed"}')
    assert counts == {(stage,): batches for stage in ("decode", "score", "encode")}
    assert all(seconds > 0 for seconds in scene.by("rbstream_stage_seconds_sum", "stage").values())


def test_a_worker_at_rest_has_partitions_and_nothing_to_do(settled: tuple[Scene, Observed]) -> None:
    scene, _ = settled
    each = [(scene.topic("in"), str(number)) for number in range(PARTITIONS)]
    assert scene.by("rbstream_consumer_lag_messages", "topic", "partition") == dict.fromkeys(each, 0)
    ends = scene.broker.ends(scene.topic("in"))
    for name in ("rbstream_end_offset", "rbstream_committed_offset"):
        found = scene.by(name, "topic", "partition")
        assert found == {(topic, str(number)): end for (topic, number), end in ends.items()}
    assert scene.by("rbstream_kafka_silence_seconds", "client").keys() == {("consumer",)}
    assert (scene.prometheus.value("rbstream_kafka_silence_seconds") or 0) < 15
    assert scene.by("rbstream_queue_batches", "queue") == {("waiting",): 0, ("scored",): 0}
    assert scene.prometheus.value("rbstream_assigned_partitions") == PARTITIONS
    assert scene.prometheus.value("rbstream_ready") == 1
    assert scene.prometheus.value('rbstream_transactions_total{outcome="aborted"}') == 0
    assert scene.prometheus.value('rbstream_rebalances_total{event="assigned"}') == 1


def test_the_reject_ratio_is_that_of_each_partitions_scores(settled: tuple[Scene, Observed]) -> None:
    scene, _ = settled
    verdicts: Counter[tuple[str, str]] = Counter()
    for message in scene.broker.read_all(scene.topic("scores")):
        (score,) = fastavro.reader(io.BytesIO(message.value() or b""))
        assert isinstance(score, dict)
        verdicts[str(score["partition"]), score["verdict"]] += 1
    for number in map(str, range(PARTITIONS)):
        alerts = sum(count for (partition, _), count in verdicts.items() if partition == number)
        ratio = verdicts[number, "rejected"] / alerts
        found = scene.prometheus.value(f'rbstream_reject_ratio{{partition="{number}"}}')
        assert found == pytest.approx(ratio)
        assert ratio > 0


def test_model_and_build_are_told(settled: tuple[Scene, Observed]) -> None:
    scene, _ = settled
    model = scene.by("rbstream_model_info", "name", "version", "sha256", "device", "precision")
    sha256 = open_bundle(Model(bundle=scene.bundle)).sha256
    assert model == {("tiny", "tiny1", sha256, "cpu", "float32"): 1}
    assert len(scene.prometheus.query('rbstream_build_info{version!="",python!=""}')) == 1


def test_promtool_finds_nothing_to_say(settled: tuple[Scene, Observed]) -> None:
    promtool = shutil.which("promtool")
    require("prometheus", promtool is not None, "promtool is not installed")
    status, text = settled[0].workers[0].get("/metrics")
    assert status == 200
    done = subprocess.run([str(promtool), "check", "metrics"], input=text, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_restarted_worker_counts_from_zero_and_only_what_is_new(
    make_scene: Callable[..., Scene], packets: Iterator[Made]
) -> None:
    scene = make_scene("restart")
    first, second = take(packets, 60), take(packets, 40)
    worker = scene.start("one")
    scene.publish(first)
    scene.await_alerts("one", expected(scene.bundle, first).alerts.total())
    assert worker.stop() == 0
    scene.prometheus.await_value('up{job="one"}', 0)
    scene.publish(second)
    scene.start("one")
    scene.await_alerts("one", expected(scene.bundle, second).alerts.total())
    scene.prometheus.await_value("sum(rbstream_consumed_messages_total)", len(second))


def test_the_lag_is_what_is_not_committed_yet(make_scene: Callable[..., Scene], packets: Iterator[Made]) -> None:
    scene = make_scene("lag")
    scene.publish(take(packets, 10))
    scene.start("one")
    scene.await_alerts("one", expected(scene.bundle, scene.published).alerts.total())
    scene.prometheus.await_value("sum(rbstream_consumer_lag_messages)", 0)

    def behind() -> bool:
        """Publish on, so that there is a lag whenever Prometheus looks."""
        scene.publish(take(packets, 300))
        names = ("rbstream_consumer_lag_messages", "rbstream_uncommitted_alerts")
        return all((scene.prometheus.value(f"max(max_over_time(sum({name})[1m:1s]))") or 0) > 0 for name in names)

    wait_until(behind, "a lag was seen", PATIENCE)
    scene.await_alerts("one", expected(scene.bundle, scene.published).alerts.total())
    scene.prometheus.await_value("sum(rbstream_consumer_lag_messages)", 0)


def test_partitions_that_move_take_their_series_along(
    make_scene: Callable[..., Scene], packets: Iterator[Made]
) -> None:
    scene = make_scene("move")
    scene.publish(take(packets, 20))
    scene.start("one")
    scene.prometheus.await_value('rbstream_assigned_partitions{job="one"}', PARTITIONS)
    scene.prometheus.await_value('count(rbstream_reject_ratio{job="one"})', PARTITIONS)
    two = scene.start("two")
    for job in scene.ports:
        scene.prometheus.await_value(f'rbstream_assigned_partitions{{job="{job}"}}', 1, PATIENCE)
    scene.prometheus.await_value('rbstream_rebalances_total{job="one", event="revoked"}', 1)
    scene.publish(take(packets, 20))
    of_partitions = ("reject_ratio", "consumer_lag_messages", "end_offset", "committed_offset")
    for name in (f"rbstream_{each}" for each in of_partitions):
        scene.prometheus.await_value(f'count({name}{{job="one"}})', 1)
        scene.prometheus.await_value(f'count({name}{{job="two"}})', 1)
    assert len(scene.by("rbstream_reject_ratio", "partition")) == PARTITIONS
    assert two.stop() == 0
    scene.prometheus.await_value('rbstream_assigned_partitions{job="one"}', PARTITIONS)


def test_lost_partitions_abort_the_transaction_and_alerts_count_once(
    make_scene: Callable[..., Scene], packets: Iterator[Made]
) -> None:
    scene = make_scene("lost", **SHORT_SESSION)
    scene.publish(take(packets, 50))
    board = scene.folder / "board"
    worker = scene.start("one", sys.executable, LAUNCHER, board, "rbstream")
    scene.await_alerts("one", expected(scene.bundle, scene.published).alerts.total())
    Board(board).order("sending", signal.SIGSTOP)
    scene.publish(take(packets, 50))
    wait_until(worker.halted, "the worker is halted in a transaction")
    group = scene.topic("group")
    wait_until(lambda: members(scene.broker, group) == 0, "its session has ended", PATIENCE)
    worker.send(signal.SIGCONT)
    scene.prometheus.await_value('rbstream_rebalances_total{event="lost"}', 1, PATIENCE)
    scene.await_alerts("one", expected(scene.bundle, scene.published).alerts.total())
    # The client may hear of it only after it has tried once more.
    aborts = sum(line["message"].startswith("aborted: ") for line in worker.lines())
    assert aborts >= 1
    assert scene.prometheus.value('rbstream_transactions_total{outcome="aborted"}') == aborts
    assert (scene.prometheus.value("rbstream_rewinds_total") or 0) >= 1
    assert (scene.prometheus.value("sum(rbstream_consumed_messages_total)") or 0) > len(scene.published)
    assert len(scene.broker.read_all(scene.topic("scores"))) == scene.prometheus.value("sum(rbstream_alerts_total)")


def members(broker: Broker, group: str) -> int:
    (future,) = broker.admin.describe_consumer_groups([group]).values()
    return len(future.result(30).members)


def test_after_an_outage_every_documented_metric_is_there_with_its_labels(
    make_scene: Callable[..., Scene], packets: Iterator[Made]
) -> None:
    scene = make_scene("outage")
    scene.publish(take(packets, 100))
    scene.start("one")
    before = expected(scene.bundle, scene.published).alerts.total()
    scene.await_alerts("one", before)
    scene.broker.kill()
    try:
        wait_until(lambda: scene.by("rbstream_kafka_errors_total", "client"), "an error is counted", PATIENCE)
        long = "rbstream_kafka_silence_seconds > bool 15"
        scene.prometheus.await_value(long, 1, PATIENCE)
        assert scene.prometheus.value("rbstream_ready") == 1, "who waits for Kafka is ready"
        assert scene.workers[0].get("/livez")[0] == 200
    finally:
        scene.broker.start()
    scene.publish(take(packets, 100))
    scene.await_alerts("one", expected(scene.bundle, scene.published).alerts.total())
    scene.prometheus.await_value(long, 0)
    for client, error in scene.by("rbstream_kafka_errors_total", "client", "error"):
        assert client in ("consumer", "producer")
        assert re.fullmatch("[A-Z_]+", error)
    for name, kind, labels in documented():
        series = f'{{__name__=~"{name}{"_bucket" if kind == "histogram" else ""}", job="one"}}'
        found = scene.prometheus.query(series)
        assert found, f"{name} is not there"
        ours = set().union(*(got for got, _ in found)) - {"__name__", "instance", "job", "le"}
        assert ours <= labels, name
        assert labels - ours <= ({"revision"} if name == "rbstream_build_info" else set()), name


def documented() -> Iterator[tuple[str, str, set[str]]]:
    """Name, kind and labels of the metrics in the docs, but for those of GPUs."""
    for line in DOCS.read_text().splitlines():
        if line.startswith("| `rbstream_"):
            name, kind, *rest = (cell.strip() for cell in line.strip("|").split("|"))
            if kind and "only with a GPU" not in line and kind in {each.kind for each in Metrics().declared}:
                yield name.strip("`"), kind, set(re.findall("`([a-z0-9]+)`", rest[0]))
