"""What all of the lab's figures have in common: matplotlib without a screen, one look, the same bytes every time."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.colors import Colormap, LinearSegmentedColormap
from matplotlib.figure import Figure
from numpy.typing import NDArray

from rbstream.output import atomic_write
from rbstream.report.stamps import INK, LEVELS, NO_DATA_COLOUR, stretch

REAL, BOGUS, THIRD = "#0d9488", "#dc4a3d", "#3b5bdb"
"""Colours: real, bogus, and whatever is neither."""


def _hex(colour: tuple[int, int, int]) -> str:
    return "#" + bytes(colour).hex()


# The colours of the reports' stamps.
STAMP: Colormap = LinearSegmentedColormap.from_list(
    "stamp", [(stop, _hex(colour)) for stop, colour in INK], LEVELS
).with_extremes(over=_hex(NO_DATA_COLOUR))

_STYLE: Any = {
    "font.size": 10.5, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25,
    "axes.titlesize": 11.5, "axes.titleweight": "bold", "legend.frameon": False, "svg.hashsalt": "rbstream",
}  # fmt: skip
_DPI = 110
_GAP = 0.12  # between alerts, as a share of a stamp: more than that between an alert's channels

mpl.rcParams.update(_STYLE)


def new_figure(width: float = 6.4, height: float = 4.2, rows: int = 1, columns: int = 1) -> tuple[Figure, Any]:
    """A figure [inches] and its axes: one, or an array of them."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns)


def draw_stamp(axis: Any, stamp: NDArray[np.float32]) -> None:
    """A stamp (h, w) stretched for the eye, first row of pixels at the bottom."""
    axis.imshow(stretch(stamp), STAMP, vmin=0, vmax=LEVELS - 1, origin="lower", interpolation="nearest")
    axis.set(xticks=[], yticks=[])
    axis.grid(visible=False)


def stamp_figure(stamps: NDArray[np.float32], titles: Sequence[str], across: int, side: float = 1.25) -> Figure:
    """Alerts (n, channels, h, w), `across` in a row, each under its title; side: of one channel [inches]."""
    n, channels = stamps.shape[:2]
    down = -(-n // across)
    figure = Figure(figsize=(across * (channels + _GAP) * side, down * (side + 0.3)), layout="constrained")
    widths = [*[1.0] * channels, _GAP] * across
    panels = figure.subplots(down, len(widths), width_ratios=widths, squeeze=False)
    for axis in panels.flat:
        axis.axis("off")
    for i, (stamp, title) in enumerate(zip(stamps, titles, strict=True)):
        begin = i % across * (channels + 1)
        row = panels[i // across, begin : begin + channels]
        for axis, image in zip(row, stamp, strict=True):
            draw_stamp(axis, image)
        row[(channels - 1) // 2].set_title(title, fontsize=10)
    return figure


def png(figure: Figure) -> bytes:
    """The figure as a PNG, the same bytes for the same figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI, metadata={"Software": None})
    return buffer.getvalue()


def save(figure: Figure, path: str | Path) -> None:
    """Write the figure as a PNG, whole or not at all."""
    with atomic_write(path) as file:
        file.write(png(figure))
