"""What is explained as pictures: stamps, occlusion maps and saliency, one above the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.colors import Colormap, LinearSegmentedColormap
from matplotlib.figure import Figure
from numpy.typing import NDArray

from rbstream.lab.explain.examples import Example
from rbstream.lab.plot import BOGUS, REAL, THIRD, draw_stamp, new_figure

Array = NDArray[np.float32]


# What speaks for real and what for bogus.
EVIDENCE: Colormap = LinearSegmentedColormap.from_list("evidence", [BOGUS, "white", REAL]).with_extremes(bad="0.85")
SLOPE: Colormap = LinearSegmentedColormap.from_list("slope", ["white", THIRD, "#10194a"]).with_extremes(bad="0.85")

_SIDE = 2.5  # inches: of one map; 63 pixels of four dots each
_SLOPES_SHOWN = 99.8  # %: all but some ten of the pixels of a triplet, see below
_COLOUR_BAR = 1.3  # inches, with its label


class Maps(NamedTuple):
    """Of one alert, or the mean of many: each float32 (channels, size, size)."""

    occlusion: Array
    saliency: Array


def alert_figure(example: Example, maps: Maps, channels: Sequence[str]) -> Figure:
    """Stamps, occlusion maps and saliency of one alert, a column a channel, first row of pixels at the bottom."""
    figure, axes = _panels(3, len(channels))
    for axis, name, stamp in zip(axes[0], channels, example.stamps, strict=True):
        draw_stamp(axis, stamp)
        axis.set_title(name)
    _occlusion_row(figure, axes[1], maps.occlusion)
    _saliency_row(figure, axes[2], maps.saliency)
    for row, name in zip(axes, ("stamp", "occlusion", "saliency"), strict=True):
        row[0].set_ylabel(name)
    figure.suptitle(_caption(example), fontsize=10)
    return figure


def mean_figure(means: Mapping[str, tuple[int, Maps]], channels: Sequence[str]) -> Figure:
    """Mean maps: a row a class (name, alerts in it), occlusion maps and then saliency, a column a channel."""
    count = len(channels)
    figure, axes = _panels(len(means), 2 * count)
    for row, (name, (alerts, maps)) in zip(axes, means.items(), strict=True):
        _occlusion_row(figure, row[:count], maps.occlusion)
        _saliency_row(figure, row[count:], maps.saliency)
        row[0].set_ylabel(f"{name}\n{alerts} alert{'s' if alerts > 1 else ''}")
    for column, name in enumerate(channels):
        axes[0, column].set_title(f"occlusion, {name}")
        axes[0, count + column].set_title(f"saliency, {name}")
    return figure


def _caption(example: Example) -> str:
    label = ("real" if example.real else "bogus") if example.labelled else "unknown"
    if 0 < example.label < 1:
        label += f" ({example.label:.2f})"
    kind = f", {example.kind}" if example.kind else ""
    return f"{example.object_id}, candid {example.candid}\nscore {example.score:.4f}, label {label}{kind}"


def _panels(rows: int, columns: int) -> tuple[Figure, Any]:
    figure, axes = new_figure(columns * _SIDE + _COLOUR_BAR, rows * _SIDE + 0.7, rows, columns)
    axes = np.reshape(axes, (rows, columns))
    for axis in axes.flat:
        axis.grid(visible=False)
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(True)
    return figure, axes


def _occlusion_row(figure: Figure, axes: Any, maps: Array) -> None:
    # One scale for all channels: which one matters is half of the answer.
    limit = float(np.abs(maps).max()) or 1.0
    _row(figure, axes, maps, EVIDENCE, -limit, limit, "score lost when hidden")


def _saliency_row(figure: Figure, axes: Any, maps: Array) -> None:
    # A stamp's median is one pixel, which alone carries the slope of all that is measured from it: it may saturate.
    limit = float(np.nanpercentile(maps, _SLOPES_SHOWN)) if np.isfinite(maps).any() else 0.0
    _row(figure, axes, maps, SLOPE, 0, limit or 1.0, "|d logit / d pixel|", extend="max")


def _row(
    figure: Figure, axes: Any, maps: Array, colours: Colormap, low: float, high: float, label: str, **options: Any
) -> None:
    for axis, values in zip(axes, maps, strict=True):
        image = axis.imshow(values, colours, vmin=low, vmax=high, origin="lower", interpolation="nearest")
    figure.colorbar(image, ax=list(axes), label=label, shrink=0.9, **options)
