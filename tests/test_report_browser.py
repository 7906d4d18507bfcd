"""The report in a real browser: no console errors, nothing fetched, something to see."""

import json
import re
import struct
import subprocess
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rbstream.report import Label, ReportData, Summary, write_report


@dataclass
class Visit:
    """What came of opening a page."""

    console: list[str]
    fetched: list[str]
    screenshot: Path


def visit(chromium: str, page: Path, folder: Path, width: int = 1200, height: int = 2400) -> Visit:
    """Open `page` in a fresh headless Chromium that can resolve no host: nothing leaves the machine."""
    screenshot, log = folder / "page.png", folder / "net.json"
    command = [
        *(chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
        *("--host-resolver-rules=MAP * ~NOTFOUND", "--hide-scrollbars", f"--window-size={width},{height}"),
        *(f"--user-data-dir={folder / 'profile'}", "--enable-logging=stderr", "--v=0"),
        *(f"--screenshot={screenshot}", f"--log-net-log={log}", page.as_uri()),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return Visit(console, _fetched_by_the_page(json.loads(log.read_text())), screenshot)


def _fetched_by_the_page(log: dict[str, Any]) -> list[str]:
    """Requests by a document; the browser's own (updates, time) have an initiator that is "not an origin"."""
    start = log["constants"]["logEventTypes"]["URL_REQUEST_START_JOB"]
    requests = [event.get("params", {}) for event in log["events"] if event["type"] == start]
    return [
        request["url"]
        for request in requests
        if request.get("initiator") != "not an origin" and re.match("http|ws|ftp", request.get("url", ""))
    ]


def drawn(png: bytes) -> float:
    """The share of an image's bytes that differ from what their neighbours foretell: 0 for a blank page."""
    data, at = b"", 8
    while at < len(png):
        (length,) = struct.unpack(">I", png[at : at + 4])
        if png[at + 4 : at + 8] == b"IDAT":
            data += png[at + 8 : at + 8 + length]
        at += length + 12
    return float(np.mean(np.frombuffer(zlib.decompress(data), np.uint8) != 0))


@pytest.fixture
def report(tmp_path: Path) -> Path:
    """A night of 400 alerts with hostile names."""
    draw = np.random.default_rng(3)
    data = ReportData(0.5)
    for candid in range(400):
        triplet = draw.normal(100, 5, (3, 63, 63)).astype(np.float32)
        triplet[:, 28:35, 28:35] += 200
        triplet[:, :8] = np.nan
        score, upstream = (float(value) for value in draw.beta(0.4, 0.5, 2))
        label = Label(candid, f"<img src=http://evil.example/{candid}>", 18.0, "<script>alert(1)</script>")
        data.add(triplet, score, upstream, "passed" if score >= 0.5 else "filtered", label)
    data.reject("<script src=http://evil.example/a.js></script>", "a")
    summary = Summary(
        title="<script>console.error('title')</script>",
        inputs=["http://evil.example/night.tar"],
        received=401,
        passed=sum(data.scores["passed"]),
        filtered=sum(data.scores["filtered"]),
        rejected={"<script src=http://evil.example/a.js></script>": 1},
        seconds=1.0,
        model_name="network",
        model_version="1",
        survey="ztf",
        threshold=0.5,
        where="magpsf < 19",
        device="cpu",
        precision="float32",
        jobs=2,
        started="2026-06-03T03:00:00Z",
        version="0.1.0",
    )
    write_report(tmp_path / "report.html", data, summary)
    return tmp_path / "report.html"


@pytest.mark.parametrize("width", [1200, 500])
def test_the_report_opens_quietly_and_shows_something(chromium: str, report: Path, tmp_path: Path, width: int) -> None:
    seen = visit(chromium, report, tmp_path, width=width)
    assert seen.console == []
    assert seen.fetched == []
    assert drawn(seen.screenshot.read_bytes()) > 0.03


def test_a_page_that_is_noisy_fetches_or_is_blank_is_noticed(chromium: str, tmp_path: Path) -> None:
    page = tmp_path / "bad.html"
    page.write_text("<img src='http://evil.example/x.png'><script>console.error('loud')</script>")
    seen = visit(chromium, page, tmp_path)
    assert any("loud" in line for line in seen.console)
    assert seen.fetched == ["http://evil.example/x.png"]
    assert drawn(seen.screenshot.read_bytes()) < 0.01
