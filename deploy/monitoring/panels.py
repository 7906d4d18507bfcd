"""What a dashboard is, and Grafana's JSON of it, by Grafana's own foundation SDK."""

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from grafana_foundation_sdk.builders import (
    bargauge,
    common,
    dashboard,
    heatmap,
    prometheus,
    stat,
    table,
    timeseries,
)
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as c
from grafana_foundation_sdk.models import dashboard as d
from grafana_foundation_sdk.models import heatmap as h
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

Kind = Literal["lines", "stack", "stat", "bars", "heatmap", "table"]

# What the variables choose, and the time that a rate is taken over.
CHOSEN = 'cluster=~"$cluster", group=~"$group"'
RATE = "[$__rate_interval]"
# What a variable shows to begin with.
_ALL = d.VariableOption(text="All", value="$__all")
_SOURCE = d.DataSourceRef(type_val="prometheus", uid="${datasource}")
# Of Grafana's 24 columns and its rows of 30 pixels.
_WIDTH: dict[Kind, int] = {"lines": 8, "stack": 8, "stat": 4, "bars": 8, "heatmap": 8, "table": 16}
_HEIGHT: dict[Kind, int] = {"lines": 8, "stack": 8, "stat": 4, "bars": 8, "heatmap": 8, "table": 8}


@dataclass(frozen=True)
class Query:
    """PromQL, and how its series are called: `{{topic}}` is the value of a label."""

    expression: str
    legend: str = ""


@dataclass(frozen=True)
class Panel:
    """One picture. unit: Grafana's name of it. shows: what it is; act: what to do when it looks wrong.

    levels: values from which it turns yellow and red; where they fall, lower values are worse.
    """

    title: str
    kind: Kind
    unit: str
    shows: str
    act: str
    queries: tuple[Query, ...]
    levels: tuple[float, float] | None = None

    @property
    def description(self) -> str:
        """What Grafana shows behind the panel's `i`."""
        return f"{self.shows}\n\n**When it looks wrong:** {self.act}"


@dataclass(frozen=True)
class Row:
    """Panels under a heading."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Dashboard:
    """A page of Grafana. uid: of its address; name: of its file, and its title behind `rbstream: `."""

    name: str
    shows: str
    since: str
    rows: tuple[Row, ...]

    @property
    def panels(self) -> list[Panel]:
        """All of them, in order."""
        return [panel for row in self.rows for panel in row.panels]

    def json(self) -> str:
        """For Grafana 11 and newer."""
        return json.dumps(_build(self), cls=JSONEncoder, indent=1, sort_keys=True) + "\n"


def _build(page: Dashboard) -> Any:
    built = (
        dashboard.Dashboard(f"rbstream: {page.name}")
        .uid(f"rbstream-{page.name.lower()}")
        .description(page.shows)
        .tags(["rbstream"])
        .timezone("utc")  # as observatories, logs and topics' names count
        .refresh("30s")
        .time(page.since, "now")
        .tooltip(d.DashboardCursorSync.CROSSHAIR)
        .readonly()
        .link(dashboard.DashboardLink("rbstream").type(d.DashboardLinkType.DASHBOARDS).tags(["rbstream"])
              .keep_time(True).include_vars(True))
        .with_variable(dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
    )  # fmt: skip
    built = (
        built.with_variable(_variable("cluster", "Kafka of the source", "rbstream_build_info"))
        .with_variable(_variable("group", "Consumer group", 'rbstream_build_info{cluster=~"$cluster"}'))
        .with_variable(
            _variable("topic", "Source topic", 'rbstream_consumed_messages_total{cluster=~"$cluster", group=~"$group"}')
        )
    )
    numbers = itertools.count(1)
    for row in page.rows:
        built = built.with_row(dashboard.Row(row.title).id(next(numbers)))
        for panel in row.panels:
            built = built.with_panel(_panel(panel).id(next(numbers)))
    return built.build()


def _variable(label: str, title: str, series: str) -> dashboard.QueryVariable:
    return (
        dashboard.QueryVariable(label)
        .label(title)
        .datasource(_SOURCE)
        .query(f"label_values({series}, {label})")
        .refresh(d.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(d.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")  # a group that has no such label yet, too
        .current(_ALL)
    )


def _panel(panel: Panel) -> Any:
    built: Any = {
        "lines": _lines,
        "stack": _stack,
        "stat": _stat,
        "bars": _bars,
        "heatmap": _heatmap,
        "table": _table,
    }[panel.kind]()
    built = (
        built.title(panel.title)
        .description(panel.description)
        .unit(panel.unit)
        .datasource(_SOURCE)
        .span(_WIDTH[panel.kind])
        .height(_HEIGHT[panel.kind])
        .targets([_target(panel.kind, query, chr(ord("A") + i)) for i, query in enumerate(panel.queries)])
    )
    if panel.levels is not None:
        built = built.thresholds(_thresholds(panel.levels))
    elif panel.kind == "stat":
        built = built.thresholds(_steps([(None, "text")]))
    if panel.kind == "lines" and panel.levels is not None:
        built = built.thresholds_style(common.GraphThresholdsStyleConfig().mode(c.GraphThresholdsStyleMode.DASHED))
    return built


def _target(kind: Kind, query: Query, name: str) -> prometheus.Dataquery:
    target = prometheus.Dataquery().expr(query.expression).legend_format(query.legend or "__auto").ref_id(name)
    if kind in ("bars", "heatmap"):
        target = target.format(PromQueryFormat.HEATMAP)  # counts by bucket, not sums of all below
    if kind == "table":
        target = target.format(PromQueryFormat.TABLE)
    return target.instant() if kind in ("table", "bars") else target.range()


def _lines() -> timeseries.Panel:
    legend = common.VizLegendOptions().show_legend(True).display_mode(c.LegendDisplayMode.LIST)
    return (
        timeseries.Panel()
        .legend(legend.placement(c.LegendPlacement.BOTTOM))
        .tooltip(common.VizTooltipOptions().mode(c.TooltipDisplayMode.MULTI))
        .min(0)
    )


def _stack() -> timeseries.Panel:
    return _lines().fill_opacity(30).stacking(common.StackingConfig().mode(c.StackingMode.NORMAL))


def _stat() -> stat.Panel:
    reduced = common.ReduceDataOptions().calcs(["lastNotNull"])
    return stat.Panel().reduce_options(reduced).graph_mode(c.BigValueGraphMode.AREA)


def _bars() -> bargauge.Panel:
    reduced = common.ReduceDataOptions().calcs(["lastNotNull"])
    return (
        bargauge.Panel()
        .reduce_options(reduced)
        .orientation(c.VizOrientation.VERTICAL)
        .display_mode(c.BarGaugeDisplayMode.BASIC)
    )


def _heatmap() -> heatmap.Panel:
    return heatmap.Panel().color(
        heatmap.HeatmapColorOptions().mode(h.HeatmapColorMode.SCHEME).scheme("Viridis").steps(64)
    )


def _table() -> table.Panel:
    # What is the same in every line, or says nothing to a reader.
    hidden = dict.fromkeys(("Time", "Value", "__name__", "job", "container", "endpoint"), True)
    return table.Panel().with_transformation(
        d.DataTransformerConfig(id_val="organize", options={"excludeByName": hidden})
    )


def _thresholds(levels: tuple[float, float]) -> dashboard.ThresholdsConfig:
    yellow, red = levels
    if yellow <= red:
        return _steps([(None, "green"), (yellow, "yellow"), (red, "red")])
    return _steps([(None, "red"), (red, "yellow"), (yellow, "green")])


def _steps(steps: Sequence[tuple[float | None, str]]) -> dashboard.ThresholdsConfig:
    listed = [d.Threshold(value=value, color=color) for value, color in steps]
    return dashboard.ThresholdsConfig().mode(d.ThresholdsMode.ABSOLUTE).steps(listed)
