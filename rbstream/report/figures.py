"""The geometry of the report's two charts, in the units of their SVG view boxes; the template draws them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rbstream.report.collect import BINS, SCORED, Point, ReportData


@dataclass(frozen=True)
class Frame:
    """Where a chart's axes run: a view box and the plotting area in it."""

    width: int
    height: int
    left: int
    right: int
    top: int
    bottom: int

    def x(self, fraction: float) -> float:
        return round(self.left + fraction * (self.right - self.left), 1)

    def y(self, fraction: float) -> float:
        return round(self.bottom - fraction * (self.bottom - self.top), 1)


@dataclass(frozen=True)
class Tick:
    at: float
    label: str


@dataclass(frozen=True)
class Bar:
    x: float
    y: float
    width: float
    height: float
    verdict: str
    title: str


@dataclass(frozen=True)
class Dot:
    x: float
    y: float
    verdict: str


@dataclass(frozen=True)
class Chart:
    """Axes, the threshold's place on them, and the marks of one kind or the other."""

    frame: Frame
    x_ticks: Sequence[Tick]
    y_ticks: Sequence[Tick]
    threshold_x: float
    threshold_y: float
    bars: Sequence[Bar] = ()
    dots: Sequence[Dot] = ()


HISTOGRAM = Frame(640, 400, left=68, right=626, top=34, bottom=346)
SCATTER = Frame(420, 400, left=72, right=408, top=10, bottom=346)  # square: the diagonal is at 45 degrees
FIFTHS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
BAR_GAP = 1.2


def histogram(data: ReportData) -> Chart:
    """Alerts per bin of score on a logarithmic axis, since nearly all of a night lies in the outermost bins.

    The verdicts stand one before the other, not stacked, so that every height can be read off the axis.
    """
    frame = HISTOGRAM
    top = max(1, *(count for counts in data.scores.values() for count in counts))
    full = math.log10(1 + top) * 1.04

    def height(count: float) -> float:
        return math.log10(1 + count) / full

    width = round((frame.right - frame.left) / BINS - BAR_GAP, 1)
    bars = []
    for index in range(BINS):
        counts = {verdict: data.scores[verdict][index] for verdict in SCORED}
        title = f"drb {index / BINS:.2f} to {(index + 1) / BINS:.2f}: " + ", ".join(
            f"{count:,} {verdict}" for verdict, count in counts.items()
        )
        # The taller first: the shorter one is drawn over it.
        for verdict, count in sorted(counts.items(), key=lambda item: -item[1]):
            if count:
                y = frame.y(height(count))
                x = round(frame.x(index / BINS) + BAR_GAP / 2, 1)
                bars.append(Bar(x, y, width, round(frame.bottom - y, 1), verdict, title))
    y_ticks = [Tick(frame.y(height(count)), _label(count)) for count in _counts(top)]
    return Chart(frame, _x_ticks(frame), y_ticks, frame.x(data.threshold), frame.y(data.threshold), bars=bars)


def scatter(data: ReportData) -> Chart:
    """The new score over the upstream one."""
    frame = SCATTER
    dots = [_dot(frame, point) for point in data.sample.points()]
    y_ticks = [Tick(frame.y(fraction), f"{fraction:.1f}") for fraction in FIFTHS]
    return Chart(frame, _x_ticks(frame), y_ticks, frame.x(data.threshold), frame.y(data.threshold), dots=dots)


def _dot(frame: Frame, point: Point) -> Dot:
    upstream = min(max(point.upstream, 0.0), 1.0)  # an upstream score is input: anything may stand there
    return Dot(frame.x(upstream), frame.y(min(max(point.score, 0.0), 1.0)), point.verdict)


def _x_ticks(frame: Frame) -> list[Tick]:
    return [Tick(frame.x(fraction), f"{fraction:.1f}") for fraction in FIFTHS]


def _label(count: int) -> str:
    return f"{count:,}" if count < 1_000_000 else f"{count // 1_000_000}M"


def _counts(top: int) -> list[int]:
    """Round numbers up to `top`, a decade apart; a small night gets steps in between."""
    decades = [10**power for power in range(int(math.log10(top)) + 1)]
    if len(decades) > 2:
        return [0, *decades]
    return [0, *(count for decade in decades for count in (decade, 2 * decade, 5 * decade) if count <= top)]
