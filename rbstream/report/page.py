"""The page itself: what was collected and what the run says of itself, in one self-contained HTML file."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from rbstream.output import atomic_write
from rbstream.report.collect import Exhibit, ReportData
from rbstream.report.figures import histogram, scatter
from rbstream.report.stamps import NO_DATA_COLOUR, triplet_png
from rbstream.report.templates import page_environment

MAX_INPUTS = 20
"""Inputs named on the page; a night of single packets is 200,000 of them."""

MAX_REJECTIONS = 25
"""Rows in the table of rejections, the rest as one sum."""

MAX_TEXT = 1_000
"""Characters of any one text of the user's: names and expressions can be as long as they like."""


@dataclass(frozen=True)
class Summary:
    """What the run says of itself; received == passed + filtered + the sum of rejected."""

    title: str
    inputs: Sequence[str]
    """Paths as they were given."""
    received: int
    passed: int
    filtered: int
    rejected: Mapping[str, int]
    """Packets by reason."""
    seconds: float
    model_name: str
    model_version: str
    survey: str
    threshold: float
    where: str | None
    device: str
    precision: str
    jobs: int
    started: str
    """ISO 8601, UTC."""
    version: str
    """rbstream's."""


@dataclass(frozen=True)
class Picture:
    """An exhibit ready to be hung."""

    uri: str
    width: int
    height: int
    object_id: str
    candid: int
    magnitude: str
    score: float
    verdict: str
    origin: str


@dataclass(frozen=True)
class Room:
    """A gallery's section."""

    heading: str
    remark: str
    pictures: Sequence[Picture]


@dataclass(frozen=True)
class Rejected:
    """A row of the table of rejections."""

    reason: str
    count: int
    percent: float
    example: str


def write_report(path: str | Path, data: ReportData, summary: Summary) -> None:
    """Write the page to `path`, whole or not at all. Raises OutputError where it can't be written."""
    page = render(data, summary)
    with atomic_write(path) as file:
        file.write(page.encode("utf-8", "replace"))  # file names may hold bytes that are no text


def render(data: ReportData, summary: Summary) -> str:
    """The page's HTML."""
    environment = page_environment("rbstream.report")
    environment.filters["short"] = _short
    return environment.get_template("page.html.j2").render(
        summary=summary,
        rejected=sum(summary.rejected.values()),
        rate=summary.received / summary.seconds if summary.seconds > 0 else 0.0,
        inputs=summary.inputs[:MAX_INPUTS],
        more_inputs=max(0, len(summary.inputs) - MAX_INPUTS),
        scored=any(count for counts in data.scores.values() for count in counts),
        histogram=histogram(data),
        scatter=scatter(data),
        agreement=_agreement(data),
        rooms=_rooms(data),
        rejections=_rejections(data, summary.rejected),
        no_data="#" + bytes(NO_DATA_COLOUR).hex(),
    )


def _agreement(data: ReportData) -> str:
    """What the scatter shows, in a sentence."""
    points, offered = data.sample.points(), data.sample.offered
    if not points:
        return "No packet carried an upstream score."
    typical = median(abs(point.score - point.upstream) for point in points)
    drawn = f"{len(points):,} of {offered:,} alerts" if len(points) < offered else f"{offered:,} alerts"
    return f"{drawn}; half of them differ by less than {max(typical, 1e-7):.1g}."


def _rooms(data: ReportData) -> list[Room]:
    near = sorted(data.nearest.exhibits(), key=lambda exhibit: (-exhibit.score, exhibit.rank))
    return [
        Room("Nearest the threshold", f"Around {data.threshold:g}, from above to below", _pictures(near)),
        Room("Most confident real", "The highest scores", _pictures(data.real.exhibits())),
        Room("Most confident bogus", "The lowest scores", _pictures(data.bogus.exhibits())),
    ]


def _pictures(exhibits: Sequence[Exhibit]) -> list[Picture]:
    return [_picture(exhibit) for exhibit in exhibits]


def _picture(exhibit: Exhibit) -> Picture:
    png, label = triplet_png(exhibit.triplet), exhibit.label
    return Picture(
        uri="data:image/png;base64," + b64encode(png).decode(),
        width=int.from_bytes(png[16:20], "big"),  # as the PNG's own header says
        height=int.from_bytes(png[20:24], "big"),
        object_id=label.object_id,
        candid=label.candid,
        magnitude="mag –" if label.magpsf is None else f"{label.magpsf:.2f} mag",
        score=exhibit.score,
        verdict=exhibit.verdict,
        origin=label.origin,
    )


def _rejections(data: ReportData, rejected: Mapping[str, int]) -> list[Rejected]:
    """By count, the most frequent first."""
    ordered = sorted(rejected.items(), key=lambda item: (-item[1], item[0]))
    shown, rest = ordered[:MAX_REJECTIONS], ordered[MAX_REJECTIONS:]
    if rest:
        shown.append((f"{len(rest)} other reasons", sum(count for _, count in rest)))
    most = max((count for _, count in shown), default=1)
    return [
        Rejected(reason, count, round(100 * count / max(most, 1), 1), data.examples.get(reason, ""))
        for reason, count in shown
    ]


def _short(text: str) -> str:
    return text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + "…"
