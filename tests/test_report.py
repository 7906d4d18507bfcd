"""The report: what is kept of a night, how parts of it merge, and the page that comes of it."""

import math
import pickle
import re
import struct
import zlib
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rbstream.output import OutputError
from rbstream.report import Label, ReportData, Summary, write_report
from rbstream.report.collect import BINS, MAX_EXHIBITS, MAX_POINTS, MAX_REASONS
from rbstream.report.page import render
from rbstream.report.stamps import GAP, GAP_WIDTH, LEVELS, NO_DATA, stretch, triplet_png

Alert = tuple[float, float | None, str, Label]

EVIL = "<script>alert(1)</script>\"'&<img src=http://evil.example/x.png onerror=alert(1)>{{ 7*7 }}"


def summary(**changes: Any) -> Summary:
    plain = Summary(
        title="The night of 3 June",
        inputs=["night.tar"],
        received=3,
        passed=1,
        filtered=1,
        rejected={"truncated": 1},
        seconds=0.5,
        model_name="network",
        model_version="1.2",
        survey="ztf",
        threshold=0.5,
        where=None,
        device="cpu",
        precision="float32",
        jobs=1,
        started="2026-06-03T03:00:00Z",
        version="0.1.0",
    )
    return replace(plain, **changes)


def triplet(seed: int = 0) -> NDArray[np.float32]:
    """Noise with a source in the middle, the corner of every stamp without data."""
    noise = np.random.default_rng(seed).normal(100, 5, (3, 63, 63)).astype(np.float32)
    noise[:, 29:34, 29:34] += 400
    noise[:, :9, :6] = np.nan
    return noise


def label(candid: int, origin: str = "night.tar") -> Label:
    return Label(candid, f"ZTF18a{candid}", 18.25, f"{origin}#{candid}")


def night(count: int, seed: int = 0) -> list[Alert]:
    draw = np.random.default_rng(seed)
    scores, upstream = draw.beta(0.3, 0.5, (2, count)).astype(np.float32)
    return [
        (float(score), float(up), "passed" if score >= 0.5 else "filtered", label(candid))
        for candid, (score, up) in enumerate(zip(scores, upstream, strict=True), 697252383015010000)
    ]


def collect(alerts: Sequence[Alert], threshold: float = 0.5) -> ReportData:
    data, stamps = ReportData(threshold), triplet()
    for score, upstream, verdict, name in alerts:
        data.add(stamps, score, upstream, verdict, name)
    return data


def kept(data: ReportData) -> Any:
    """All that the page is made from, triplets aside."""
    galleries = [
        [(e.rank, e.score, e.verdict, e.label) for e in gallery.exhibits()]
        for gallery in (data.real, data.bogus, data.nearest)
    ]
    return data.scores, data.sample.offered, data.sample.points(), galleries, data.examples


# What is collected


def test_galleries_hold_the_extremes() -> None:
    alerts = night(500)
    data = collect(alerts)
    scores = sorted(score for score, *_ in alerts)
    assert [e.score for e in data.bogus.exhibits()] == scores[:MAX_EXHIBITS]
    assert [e.score for e in data.real.exhibits()] == scores[::-1][:MAX_EXHIBITS]
    nearest = sorted(abs(score - 0.5) for score in scores)[:MAX_EXHIBITS]
    assert [abs(e.score - 0.5) for e in data.nearest.exhibits()] == nearest


def test_histogram_counts_every_alert_once() -> None:
    data = collect([(s, None, "passed", label(n)) for n, s in enumerate([0.0, 0.0199, 0.02, 0.999, 1.0])])
    assert data.scores["passed"][0] == 2
    assert data.scores["passed"][1] == 1
    assert data.scores["passed"][BINS - 1] == 2
    assert sum(data.scores["filtered"]) == 0


def test_kept_triplets_are_copies() -> None:
    stamps, data = triplet(), ReportData(0.5)
    data.add(stamps, 0.9, None, "passed", label(1))
    stamps[:] = 0
    np.testing.assert_array_equal(data.real.exhibits()[0].triplet, triplet())


def test_an_alert_seen_again_takes_no_second_place() -> None:
    alerts = night(20)
    again = [(score, up, verdict, name._replace(origin="copy.tar")) for score, up, verdict, name in alerts]
    data = collect([*again, *alerts, *again])
    assert len({e.label.candid for e in data.real.exhibits()}) == MAX_EXHIBITS
    assert [e.label.origin for e in data.real.exhibits()] == ["copy.tar"] * MAX_EXHIBITS
    assert len(data.sample.points()) == 20
    assert data.sample.offered == 60


def test_no_score_no_place() -> None:
    data = collect([(math.nan, 0.5, "filtered", label(1)), (0.5, math.nan, "filtered", label(2))])
    assert [e.label.candid for e in data.nearest.exhibits()] == [2]
    assert data.sample.points() == []


def test_size_does_not_grow_with_the_night() -> None:
    small, large = collect(night(5_000)), collect(night(25_000))
    assert len(small.sample.points()) == len(large.sample.points()) == MAX_POINTS
    for number in range(1_000):
        large.reject(f"reason {number}", "x" * 100_000)
    assert len(large.examples) == MAX_REASONS
    assert len(pickle.dumps(large)) < len(pickle.dumps(small)) + 50_000
    page = render(large, summary(rejected={f"reason {n}": n for n in range(1_000)}, inputs=["x" * 9_000] * 9_000))
    assert len(page.encode()) < 2_000_000


ALERTS = st.lists(
    st.builds(
        lambda candid, score, up, passed, origin: (
            score,
            up,
            "passed" if passed else "filtered",
            label(candid, origin),
        ),
        st.integers(0, 40),
        st.sampled_from([0.0, 0.3, 0.49, 0.5, 0.51, 1.0]) | st.floats(0, 1, width=32),
        st.none() | st.floats(0, 1, width=32),
        st.booleans(),
        st.sampled_from("abc"),
    ),
    max_size=60,
    unique_by=lambda alert: alert[3].origin,
)


@settings(max_examples=150, deadline=None)
@given(ALERTS, st.integers(0, 60), st.integers(0, 60), st.randoms())
def test_parts_merge_in_any_order(alerts: list[Alert], first: int, second: int, random: Any) -> None:
    first, second = sorted((first, second))
    whole = kept(collect(alerts))
    shuffled = random.sample(alerts, len(alerts))

    def parts() -> tuple[ReportData, ReportData, ReportData]:
        return collect(shuffled[:first]), collect(shuffled[first:second]), collect(shuffled[second:])

    a, b, c = parts()
    a.merge(b)
    a.merge(c)
    assert kept(a) == whole
    a, b, c = pickle.loads(pickle.dumps(parts()))
    b.merge(c)
    b.merge(a)
    assert kept(b) == whole


@pytest.mark.parametrize("cut", [0, 1, 4_000, 4_001, 9_000])
def test_samples_merge_beyond_their_bound(cut: int) -> None:
    alerts = night(9_000)
    merged = collect(alerts[cut:])
    merged.merge(collect(alerts[:cut]))
    assert kept(merged) == kept(collect(alerts))
    assert len(merged.sample.points()) == MAX_POINTS


def test_examples_merge_in_any_order() -> None:
    rejections = [(f"reason {n % 150}", f"file {n * 7 % 300:03}") for n in range(300)]
    whole, one, two = ReportData(0.5), ReportData(0.5), ReportData(0.5)
    for number, (reason, origin) in enumerate(rejections):
        whole.reject(reason, origin)
        (one if number % 3 else two).reject(reason, origin)
    two.merge(one)
    assert two.examples == whole.examples
    assert len(whole.examples) == MAX_REASONS


def test_parts_of_different_thresholds_do_not_merge() -> None:
    with pytest.raises(ValueError, match="thresholds differ"):
        ReportData(0.5).merge(ReportData(0.6))


# Stamps


def test_no_data_has_a_colour_of_its_own() -> None:
    stamp = triplet()[0]
    stamp[50, 50] = -3.4e38
    stamp[51, 51] = np.inf
    levels = stretch(stamp)
    expected = ~np.isfinite(stamp) | (stamp < -1e30)
    np.testing.assert_array_equal(levels == NO_DATA, expected)
    assert levels[31, 31] > 2 * np.median(levels[~expected])
    assert levels[~expected].max() < LEVELS


@pytest.mark.parametrize("value", [0.0, 100.0, -5.0, 1e29, np.nan, np.inf, -3.4e38])
def test_flat_stamps_are_drawn(value: float) -> None:
    with np.errstate(all="raise"):
        levels = stretch(np.full((63, 63), value, np.float32))
    assert len(np.unique(levels)) == 1


@pytest.mark.parametrize("outlier", [1e-30, 1.0, 1e29])
def test_a_lone_bright_pixel_is_bright(outlier: float) -> None:
    stamp = np.zeros((63, 63), np.float32)
    stamp[31, 31] = outlier
    levels = stretch(stamp)
    assert levels[31, 31] == LEVELS - 1
    assert levels[0, 0] < LEVELS / 2


def test_the_first_row_is_at_the_bottom() -> None:
    stamps = np.zeros((3, 63, 63), np.float32)
    stamps[0, 0] = np.nan
    png = triplet_png(stamps)
    width, height = struct.unpack(">II", png[16:24])
    assert (width, height) == (3 * 63 + 2 * GAP_WIDTH, 63)
    start = png.index(b"IDAT") + 4
    rows = np.frombuffer(zlib.decompress(png[start:]), np.uint8).reshape(height, width + 1)[:, 1:]
    assert (rows[-1, :63] == NO_DATA).all()
    assert not (rows[0, :63] == NO_DATA).any()
    assert (rows[:, 63:65] == GAP).all()


# The page


class Elements(HTMLParser):
    """Every element of a page with its attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.found)


def test_the_page_holds_what_it_should() -> None:
    page = render(collect(night(300)), summary(received=301, passed=120, filtered=180, where="magpsf < 19.5"))
    elements = Elements(page)
    assert elements.count("img") == 3 * MAX_EXHIBITS
    assert elements.count("svg") == 2
    assert elements.count("circle") == 300
    assert elements.count("h1") == 1
    for text in ("magpsf &lt; 19.5", "Nearest the threshold", "threshold 0.5", "truncated", "39.9%", "602"):
        assert text in page


def test_nothing_is_fetched() -> None:
    for tag, attributes in Elements(render(collect(night(50)), summary(title=EVIL))).found:
        assert tag not in ("script", "iframe", "object", "embed", "audio", "video", "base", "form")
        for name in ("src", "href", "srcset", "xlink:href", "action", "data", "poster"):
            assert (attributes.get(name) or "data:").startswith("data:")
        assert not any(name.startswith("on") for name in attributes)
        assert not re.search(r"url\(|@import", attributes.get("style") or "")


def test_input_is_escaped_wherever_it_appears() -> None:
    data = collect([(0.9, 0.8, "passed", Label(1, EVIL, None, EVIL))])
    data.reject(EVIL, EVIL)
    plain = Elements(render(collect([(0.9, 0.8, "passed", label(1))]), summary()))
    hostile = summary(
        **dict.fromkeys(("title", "model_name", "model_version", "survey", "where", "device", "precision"), EVIL),
        **dict.fromkeys(("started", "version"), EVIL),
        inputs=[EVIL, "night\udcff.tar"],
        rejected={EVIL: 1},
    )
    page = render(data, hostile)
    found = Elements(page)
    assert "<script" not in page
    assert "onerror=alert(1)&gt;" in page
    assert "{{ 7*7 }}" in page
    assert [tag for tag, _ in found.found if tag in ("img", "script")] == ["img"] * plain.count("img")


def blank() -> ReportData:
    return ReportData(0.5)


@pytest.mark.parametrize(
    ("data", "changes"),
    [
        (blank(), {"received": 0, "passed": 0, "filtered": 0, "rejected": {}, "seconds": 0.0, "inputs": []}),
        (blank(), {"received": 9, "passed": 0, "filtered": 0, "rejected": {"gzip": 9}}),
        (collect([(0.5, None, "passed", label(1))]), {"rejected": {}}),
        (
            collect([(1.0, 1.0, "passed", label(1)), (0.0, -7.0, "filtered", label(2))]),
            {"rejected": {"a": 0}},
        ),
        (collect(night(100), threshold=0.0), {"threshold": 0.0}),
        (collect(night(100), threshold=1.0), {"threshold": 1.0}),
    ],
)
def test_every_night_has_a_page(data: ReportData, changes: dict[str, Any], tmp_path: Path) -> None:
    write_report(tmp_path / "report.html", data, summary(**changes))
    assert (tmp_path / "report.html").read_text(encoding="utf-8").rstrip().endswith("</html>")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


@pytest.mark.parametrize("value", [np.nan, 0.0, 7.0, -3.4e38])
def test_stamps_without_an_image_are_drawn(value: float) -> None:
    data = ReportData(0.5)
    data.add(np.full((3, 63, 63), value, np.float32), 0.5, 0.5, "passed", label(1))
    assert Elements(render(data, summary())).count("img") == 3


def test_a_page_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(OutputError, match="Not a directory"):
        write_report(tmp_path / "taken" / "report.html", collect(night(5)), summary())
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]
