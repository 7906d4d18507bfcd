"""Draws a dashboard as Grafana lays it out, from its JSON and what Prometheus answers to its queries.

No Grafana: positions, kinds, units, thresholds and legends are read from the JSON; what they look like is matplotlib's.
"""

import json
import math
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.ticker import FuncFormatter

Points = list[tuple[float, float]]
Series = list[tuple[dict[str, str], Points]]
History = Callable[[str, float, float], Series]
"""Asks Prometheus: expression, first and last time [s since 1970]."""

# Inches of one of Grafana's 24 columns, and of one of its rows.
_COLUMN, _ROW = 0.8, 0.42
# Longer names than this, and more of them, have no room under a panel.
_LETTERS, _NAMES = 40, 6
# Of a checksum nobody reads more.
_CELL = 24
# For tests and pictures of minutes, not nights.
_VARIABLES = {"$__rate_interval": "15s", "$__range": "1h", "$cluster": ".*", "$topic": ".*"}


def filled_in(expression: str, group: str = ".*") -> str:
    """A panel's expression as Grafana sends it, with all clusters and topics chosen. group: a regular expression."""
    for name, value in {**_VARIABLES, "$group": group}.items():
        expression = expression.replace(name, value)
    return expression


def draw(page: dict[str, Any], history: History, start: float, end: float, path: Path, group: str = ".*") -> list[str]:
    """Draw a dashboard between two times into a PNG. Returns the titles of the panels without data."""
    panels = page["panels"]
    height = max(each["gridPos"]["y"] + each["gridPos"]["h"] for each in panels)
    figure = plt.figure(figsize=(24 * _COLUMN, height * _ROW + 0.6), facecolor="#f4f5f5")
    figure.suptitle(page["title"], x=0.01, y=1 - 0.1 / (height * _ROW), ha="left", va="top", fontsize=15)
    empty = []
    for panel in panels:
        at, total = panel["gridPos"], height + 0.6 / _ROW
        if panel["type"] == "row":
            figure.text(0.01, 1 - (at["y"] + 0.6 + 0.6 / _ROW) / total, panel["title"], va="center", fontsize=12,
                        weight="bold")  # fmt: skip
            continue
        inner = (at["x"] + 0.9, height - at["y"] - at["h"] + 2.3, at["w"] - 1.2, at["h"] - 3.1)
        axes = figure.add_axes((inner[0] / 24, inner[1] / total, inner[2] / 24, inner[3] / total))
        axes.set_title(panel["title"], fontsize=10, loc="left")
        series = list(_asked(panel, lambda expression: history(filled_in(expression, group), start, end)))
        if any(value == value for _, points in series for _, value in points):
            _DRAWN[panel["type"]](axes, panel, series)
        else:
            empty.append(panel["title"])
            axes.set_axis_off()
            axes.text(0.5, 0.5, "No data", ha="center", color="grey")
    figure.savefig(path, dpi=70)
    plt.close(figure)
    return empty


def _asked(panel: dict[str, Any], ask: Callable[[str], Series]) -> Iterator[tuple[dict[str, str], Points]]:
    """The series of all targets; their legends under the empty label."""
    for target in panel["targets"]:
        for labels, points in ask(target["expr"]):
            yield labels | {"": _legend(target["legendFormat"], labels)}, points


def _legend(pattern: str, labels: dict[str, str]) -> str:
    if pattern == "__auto":
        return ", ".join(labels.values())
    return re.sub(r"\{\{(\w+)\}\}", lambda match: labels.get(match[1], ""), pattern)


def _timeseries(axes: Axes, panel: dict[str, Any], series: Series) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    stacked = defaults.get("custom", {}).get("stacking", {}).get("mode") == "normal"
    below: Any = None
    times = sorted({at for _, points in series for at, _ in points})
    dates = [datetime.fromtimestamp(at, UTC) for at in times]
    for labels, points in series:
        known = dict(points)
        values = np.array([known.get(at, math.nan) for at in times])
        if stacked:
            values = np.nan_to_num(values)
            top = values if below is None else below + values
            axes.fill_between(dates, 0 if below is None else below, top, alpha=0.3)
            below = values = top
        axes.plot(dates, values, linewidth=1.2, label=labels[""].strip()[:_LETTERS])
    low, high = axes.get_ylim()
    axes.set_ylim(min(0, low), high)
    if defaults.get("custom", {}).get("thresholdsStyle"):
        for step in defaults["thresholds"]["steps"][1:]:
            if step["value"] <= 2 * high:
                axes.axhline(step["value"], color=step["color"], linestyle="--", linewidth=1)
    unit, _, suffix = defaults["unit"].partition("suffix:")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: shown(value, unit or "none")))
    axes.set_title(suffix.strip(), fontsize=8, loc="right")
    locator = AutoDateLocator(minticks=2, maxticks=6)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.3)
    handles, names = axes.get_legend_handles_labels()
    axes.legend(handles[:_NAMES], names[:_NAMES], fontsize=7, ncol=2, loc="upper left", bbox_to_anchor=(-0.05, -0.12),
                frameon=False, borderaxespad=0)  # fmt: skip


def _stat(axes: Axes, panel: dict[str, Any], series: Series) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    _, points = series[-1]
    value = next(value for _, value in reversed(points) if value == value)
    steps = defaults["thresholds"]["steps"]
    color = [step["color"] for step in steps if step["value"] is None or value >= step["value"]][-1]
    axes.set_axis_off()
    axes.text(0.5, 0.45, shown(value, defaults["unit"]), ha="center", va="center", fontsize=17,
              color={"text": "black", "yellow": "goldenrod"}.get(color, color))  # fmt: skip


def _by_bound(series: Series) -> list[tuple[str, Points]]:
    """Histogram series, each without what the bounds below it count, in order of the bounds."""
    ordered = sorted(series, key=lambda one: float(one[0]["le"].replace("+Inf", "inf")))
    below: dict[float, float] = {}
    found = []
    for labels, points in ordered:
        found.append((labels["le"], [(at, value - below.get(at, 0.0)) for at, value in points]))
        below = dict(points)
    return found


def _bargauge(axes: Axes, panel: dict[str, Any], series: Series) -> None:
    bars = [(bound, points[-1][1]) for bound, points in _by_bound(series)]
    axes.bar([bound for bound, _ in bars], [value for _, value in bars])
    axes.tick_params(labelsize=7)
    axes.tick_params(axis="x", rotation=60)


def _heatmap(axes: Axes, panel: dict[str, Any], series: Series) -> None:
    rows = _by_bound(series)
    times = sorted({at for _, points in rows for at, _ in points})
    grid = np.array([[dict(points).get(at, math.nan) for at in times] for _, points in rows])
    axes.imshow(grid, aspect="auto", origin="lower", interpolation="nearest", cmap="viridis")
    axes.set_yticks(range(0, len(rows), 3), [bound for bound, _ in rows[::3]], fontsize=6)
    step = max(1, len(times) // 5)
    axes.set_xticks(
        range(0, len(times), step), [f"{datetime.fromtimestamp(at, UTC):%H:%M:%S}" for at in times[::step]], fontsize=6
    )


def _table(axes: Axes, panel: dict[str, Any], series: Series) -> None:
    last = max(at for _, points in series for at, _ in points)
    rows = [labels for labels, points in series if points[-1][0] == last]
    names = sorted({name for row in rows for name in row if name})
    axes.set_axis_off()
    cells = [[row.get(name, "")[:_CELL] for name in names] for row in rows]
    table = axes.table(cells, colLabels=names, loc="upper center", cellLoc="left")
    table.auto_set_font_size(False)
    table.set_fontsize(7)
    table.auto_set_column_width(range(len(names)))


_DRAWN = {
    "timeseries": _timeseries,
    "stat": _stat,
    "bargauge": _bargauge,
    "heatmap": _heatmap,
    "table": _table,
}


def shown(value: float, unit: str) -> str:
    """A number with its unit, as Grafana writes it, nearly."""
    if unit == "percentunit":
        return f"{100 * value:.3g}%"
    if unit == "s" and 0 < abs(value) < 1:
        return f"{1000 * value:.3g} ms"
    if unit in ("bytes", "Bps"):
        power = min(3, int(math.log(max(value, 1), 1024)))
        return f"{value / 1024**power:.3g} {('B', 'KiB', 'MiB', 'GiB')[power]}{'/s' if unit == 'Bps' else ''}"
    suffix = {"short": "", "none": "", "s": " s"}.get(unit, unit.removeprefix("suffix:"))
    return f"{value:.3g}{suffix}" if abs(value) < 1000 else f"{value:,.0f}{suffix}"


def load(path: Path) -> dict[str, Any]:
    """A dashboard's JSON."""
    page: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return page
