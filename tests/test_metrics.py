"""Metrics: what is counted agrees with what happened, is counted once, and is what the docs say."""

import shutil
import subprocess
import sys
import threading
from collections import Counter
from io import BytesIO
from pathlib import Path

import fastavro
import numpy as np
import prometheus_client
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from needs import require
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from rbstream.assembly import make_pipeline, make_scorer, open_bundle
from rbstream.collectors import Declared, Histogram
from rbstream.filter import Filter
from rbstream.metrics import Metrics, describe_metrics, observe
from rbstream.packet.alert import Origin, Packet
from rbstream.pipeline import Outcome
from rbstream.settings import Limits, Model

DOCS = Path(__file__).parent.parent / "docs"
UPSTREAM = 0.625  # exact in float32, as packets hold it
GPU = {"rbstream_gpu_memory_bytes", "rbstream_gpu_utilization_ratio"}


@pytest.fixture(scope="module")
def outcomes(bundle: Path, packets: list[bytes]) -> list[Outcome]:
    """Of sixty simulated packets, twenty of them scored upstream, and three that are none, one of them empty.

    In copies, as the memory is used again.
    """
    model = Model(bundle=bundle, device="cpu")
    scorer = make_scorer(open_bundle(model), model)
    contents = [*map(scored_upstream, packets[:20]), b"no packet", b"", b"no packet", *packets[20:]]
    chunk = [Packet(Origin("night"), content) for content in contents]
    found = []
    for batch in make_pipeline(scorer, {"main": Filter(0.5, None)}, Limits(), 16).run([chunk]):
        for outcome in batch.outcomes:
            if outcome.triplet is not None:
                outcome.triplet = outcome.triplet.copy()
            found.append(outcome)
    assert {outcome.verdict for outcome in found} == {"passed", "filtered", "rejected"}, "a fair mix"
    return found


def scored_upstream(packet: bytes) -> bytes:
    reader = fastavro.reader(BytesIO(packet))
    (record,) = reader
    record["candidate"]["drb"] = UPSTREAM
    scored = BytesIO()
    fastavro.writer(scored, reader.writer_schema, [record])
    return scored.getvalue()


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def total(metrics: Metrics, name: str) -> float:
    return sum(sample.value for family in scrape(metrics) for sample in family.samples if sample.name == name)


def scrape(metrics: Metrics) -> list[Metric]:
    return list(parse_text(generate_latest(metrics.registry).decode()))


def test_every_alert_is_counted_once_by_verdict_reason_and_topic(outcomes: list[Outcome]) -> None:
    metrics = Metrics()
    topics = ["monday" if number % 3 else "sunday" for number in range(len(outcomes))]
    metrics.commit(observe(outcomes, topics))
    expected = Counter((each.verdict, each.reason, topic) for each, topic in zip(outcomes, topics, strict=True))
    assert expected["rejected", "empty", "sunday"] + expected["rejected", "empty", "monday"] == 1
    for (verdict, reason, topic), count in expected.items():
        assert value(metrics, "rbstream_alerts_total", verdict=verdict, reason=reason, topic=topic) == count
    assert total(metrics, "rbstream_alerts_total") == len(outcomes) == 63


def test_nothing_is_counted_before_the_commit_so_an_aborted_batch_counts_once(outcomes: list[Outcome]) -> None:
    metrics, untouched = Metrics(), Metrics()
    topics = ["night"] * len(outcomes)
    observe(outcomes, topics)  # aborted: its Observed is thrown away
    ours = [family for family in scrape(metrics) if family.name.startswith("rbstream_")]
    assert ours == [family for family in scrape(untouched) if family.name.startswith("rbstream_")]
    metrics.commit(observe(outcomes, topics))
    assert total(metrics, "rbstream_alerts_total") == len(outcomes)


def test_scores_and_their_distance_from_the_packets_own_are_counted_by_bucket(outcomes: list[Outcome]) -> None:
    metrics = Metrics()
    metrics.commit(observe(outcomes, ["night"] * len(outcomes)))
    drb = np.array([each.drb for each in outcomes if each.verdict != "rejected"])
    assert total(metrics, "rbstream_drb_count") == len(drb)
    assert total(metrics, "rbstream_drb_sum") == pytest.approx(drb.sum())
    assert value(metrics, "rbstream_drb_bucket", le="0.5") == (drb <= 0.5).sum()


def test_the_difference_is_the_new_score_minus_the_upstream_one(outcomes: list[Outcome]) -> None:
    difference = np.array([each.drb for each in outcomes[:20]]) - UPSTREAM
    observed = observe(outcomes, ["night"] * len(outcomes))
    assert observed.difference.tolist() == difference.tolist()
    metrics = Metrics()
    metrics.commit(observed)
    assert value(metrics, "rbstream_drb_difference_bucket", le="+Inf") == 20
    assert value(metrics, "rbstream_drb_difference_bucket", le="-0.2") == (difference <= -0.2).sum()


def test_masked_pixels_and_stamps_cut_by_the_chips_edge_are_told_apart() -> None:
    whole = np.ones((3, 63, 63), np.float32)
    extreme, spot, row, column, last_pixel = (whole.copy() for _ in range(5))
    extreme[0, 3, 3], extreme[0, 3, 4] = -3.4e38, np.inf
    spot[1, 30, 30] = np.nan
    row[2, 58:, :] = np.nan
    column[0, :, 62] = np.nan
    last_pixel[0, 62, 62] = np.nan
    observed = [observe([Outcome("passed", _Unscored(), drb=0.5, triplet=each)], ["t"]) for each in
                (whole, extreme, spot, row, column, last_pixel)]  # fmt: skip
    assert [each.masked for each in observed] == [0, 0, 1, 1, 1, 1]
    assert [each.edge for each in observed] == [0, 0, 0, 1, 1, 0]


class _Unscored:
    """An alert that came without a score."""

    drb_upstream = None


def test_topics_must_be_as_many_as_outcomes(outcomes: list[Outcome]) -> None:
    with pytest.raises(ValueError, match="shorter"):
        observe(outcomes, ["night"])


BOUNDS = (-0.5, 0.0, 0.1, 1.0)
NUMBERS = st.one_of(st.sampled_from([*BOUNDS, 0.1000001]), st.floats(-2, 2))


@given(st.lists(NUMBERS), st.lists(NUMBERS))
def test_a_histogram_counts_as_prometheus_clients_own_does(many: list[float], single: list[float]) -> None:
    ours, registry = Histogram(Declared("h", "histogram", (), "1", "h", BOUNDS)), CollectorRegistry()
    theirs = prometheus_client.Histogram("h", "h", buckets=BOUNDS, registry=registry)
    ours.observe_many(np.array(many, np.float64))
    for number in single:
        ours.observe(number)
    for number in [*many, *single]:
        theirs.observe(number)
    counts, added = ours.labels().read()
    assert counts == [(bound, registry.get_sample_value("h_bucket", {"le": bound})) for bound, _ in counts]
    assert added == pytest.approx(sum(many) + sum(single))


def test_nan_is_no_value() -> None:
    metrics = Metrics()
    metrics.drb.observe(float("nan"))
    metrics.drb.observe_many([float("nan"), 0.25])
    metrics.drb.observe_many([])
    assert (total(metrics, "rbstream_drb_count"), total(metrics, "rbstream_drb_sum")) == (1, 0.25)


def test_values_from_several_threads_add_up() -> None:
    metrics = Metrics()

    def work() -> None:
        for _ in range(2000):
            metrics.stage_seconds.labels("decode").observe_many([0.01, 0.2])
            metrics.stage_seconds.labels("score").observe(0.01)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert value(metrics, "rbstream_stage_seconds_count", stage="decode") == 16_000
    assert value(metrics, "rbstream_stage_seconds_count", stage="score") == 8_000


def test_a_stage_that_raises_is_not_timed() -> None:
    metrics = Metrics()
    with metrics.stage_seconds.labels("encode").time():
        pass
    with pytest.raises(OSError, match="gone"), metrics.stage_seconds.labels("encode").time():
        raise OSError("gone")
    assert value(metrics, "rbstream_stage_seconds_count", stage="encode") == 1


def test_a_histogram_refuses_the_wrong_number_of_labels() -> None:
    with pytest.raises(ValueError, match="rbstream_stage_seconds has the labels"):
        Metrics().stage_seconds.labels("decode", "t")


def test_a_partition_that_went_to_another_worker_is_forgotten_and_no_other() -> None:
    metrics = Metrics()
    for partition in ("0", "1"):
        metrics.consumer_lag.labels("night", partition).set(7)
        metrics.reject_ratio.labels("night", partition).set(0.1)
        metrics.end_offset.labels("night", partition).set(9)
        metrics.committed_offset.labels("night", partition).set(2)
    metrics.forget("night", 0)
    metrics.forget("never seen", 3)
    names = ("consumer_lag_messages", "reject_ratio", "end_offset", "committed_offset")
    for name in (f"rbstream_{each}" for each in names):
        assert value(metrics, name, topic="night", partition="0") is None
        assert value(metrics, name, topic="night", partition="1") is not None


def test_several_can_live_in_one_process() -> None:
    one, other = Metrics(), Metrics()
    one.rewinds.inc()
    assert (total(one, "rbstream_rewinds_total"), total(other, "rbstream_rewinds_total")) == (1, 0)


def test_the_model_that_scores_is_the_only_one_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rbstream.metrics.__revision__", "abc123")
    metrics = Metrics()
    metrics.set_model("braai", "d6_m7", "00ff", "cpu", "float32")
    metrics.set_model("compact", "c1", "11ee", "cpu", "bfloat16")
    labels = [sample.labels for family in scrape(metrics) for sample in family.samples if family.name == MODEL]
    expected = {"name": "compact", "version": "c1", "sha256": "11ee", "device": "cpu", "precision": "bfloat16"}
    assert labels == [expected]
    builds = [sample.labels for family in scrape(metrics) for sample in family.samples if family.name == BUILD]
    assert [build["revision"] for build in builds] == ["abc123"]


MODEL, BUILD = "rbstream_model_info", "rbstream_build_info"


def test_every_declared_metric_is_scraped_and_nothing_undeclared() -> None:
    metrics = Metrics()
    scraped = {line.split()[2]: line.split()[3] for line in generate_latest(metrics.registry).decode().splitlines()
               if line.startswith("# TYPE rbstream_")}  # fmt: skip
    declared = {each.name: each.kind.replace("info", "gauge") for each in metrics.declared}
    assert scraped == {name: kind for name, kind in declared.items() if name not in GPU}


def test_names_say_their_kind_and_unit() -> None:
    for each in Metrics().declared:
        assert each.name.endswith("_total") == (each.kind == "counter"), each
        assert each.name.endswith("_info") == (each.kind == "info"), each
        if each.unit in ("seconds", "bytes"):
            assert each.name.removesuffix("_total").endswith(f"_{each.unit}"), each
        assert bool(each.buckets) == bool(each.why) == (each.kind == "histogram"), each
        assert list(each.buckets) == sorted(set(each.buckets)), each


def test_the_docs_are_what_the_declarations_say() -> None:
    assert (DOCS / "metrics.md").read_text() == describe_metrics(), "run docs/generate.py"


def test_the_docs_name_every_metric_and_label() -> None:
    rows = [line for line in (DOCS / "metrics.md").read_text().splitlines() if line.startswith("| `rbstream_")]
    for each in Metrics().declared:
        row = next(row for row in rows if row.startswith(f"| `{each.name}` |"))
        assert all(f"`{label}`" in row for label in each.labels)
        assert each.meaning in row


def used(outcomes: list[Outcome]) -> Metrics:
    """Metrics with a series of every kind."""
    metrics = Metrics()
    metrics.commit(observe(outcomes, ['a "quoted" topic'] * len(outcomes)))
    metrics.set_model("tiny", "tiny1", "00", "cpu", "float32")
    metrics.consumer_lag.labels("night", 0).set(3)
    return metrics


def test_openmetrics_parsers_accept_it(outcomes: list[Outcome]) -> None:
    families = {
        family.name: family for family in parse_openmetrics(generate_openmetrics(used(outcomes).registry).decode())
    }
    assert families["rbstream_alerts"].type == "counter"
    assert families["rbstream_drb_difference"].type == "histogram"


def test_promtool_finds_nothing_to_say(outcomes: list[Outcome]) -> None:
    promtool = shutil.which("promtool")
    require("prometheus", promtool is not None, "promtool is not installed")
    text = generate_latest(used(outcomes).registry)
    done = subprocess.run([str(promtool), "check", "metrics"], input=text, capture_output=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_no_gpu_metrics_where_the_cpu_scores() -> None:
    metrics = Metrics()
    metrics.set_model("tiny", "tiny1", "00", "cpu", "float32")
    assert not GPU & {family.name for family in scrape(metrics)}


def test_gpu_memory_and_utilization_of_the_device_that_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", {"cuda:1": (30, 100)}.__getitem__)
    monkeypatch.setattr(torch.cuda, "utilization", {"cuda:1": 25}.__getitem__)
    metrics = Metrics()
    metrics.set_model("tiny", "tiny1", "00", "cuda:1", "float32")
    assert value(metrics, "rbstream_gpu_memory_bytes", device="cuda:1", kind="used") == 70
    assert value(metrics, "rbstream_gpu_memory_bytes", device="cuda:1", kind="total") == 100
    assert value(metrics, "rbstream_gpu_utilization_ratio", device="cuda:1") == 0.25


def test_a_gpu_that_does_not_answer_takes_no_other_metric_along() -> None:
    if torch.cuda.is_available():
        pytest.skip("needs a machine without a GPU")
    metrics = Metrics()
    metrics.set_model("tiny", "tiny1", "00", "cuda:0", "float32")
    families = {family.name for family in scrape(metrics)}
    assert "rbstream_alerts" in families
    assert not GPU & families


def test_neither_metrics_nor_health_import_torch() -> None:
    program = "import rbstream.health, sys; from rbstream.metrics import Metrics; list(Metrics().registry.collect())"
    subprocess.run([sys.executable, "-c", f"{program}; assert 'torch' not in sys.modules"], check=True, timeout=60)
