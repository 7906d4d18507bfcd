"""What all of the lab's figures have in common: matplotlib without a screen, one look, the same bytes every time."""

from __future__ import annotations

import io
from base64 import b64encode
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from rbstream.output import atomic_write

REAL, BOGUS, THIRD = "#0d9488", "#dc4a3d", "#3b5bdb"
"""Colours: real, bogus, and whatever is neither."""

_STYLE: Any = {
    "font.size": 10.5, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25,
    "axes.titlesize": 11.5, "axes.titleweight": "semibold", "legend.frameon": False, "svg.hashsalt": "rbstream",
}  # fmt: skip
_DPI = 110


def new_figure(width: float = 6.4, height: float = 4.2, rows: int = 1, columns: int = 1) -> tuple[Figure, Any]:
    """A figure [inches] and its axes: one, or an array of them."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        return figure, figure.subplots(rows, columns)


def png(figure: Figure) -> bytes:
    """The figure as a PNG, the same bytes for the same figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI, metadata={"Software": None})
    return buffer.getvalue()


def save(figure: Figure, path: str | Path) -> None:
    """Write the figure as a PNG, whole or not at all."""
    with atomic_write(path) as file:
        file.write(png(figure))


def data_uri(figure: Figure) -> str:
    """The figure for an HTML page."""
    return "data:image/png;base64," + b64encode(png(figure)).decode()
