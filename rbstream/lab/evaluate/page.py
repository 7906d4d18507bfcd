"""The page: numbers, figures and galleries of an evaluation in one self-contained HTML file."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from rbstream.lab.dataset import DataSet
from rbstream.lab.evaluate import figures, words
from rbstream.lab.evaluate.evaluation import Evaluation, Results
from rbstream.lab.evaluate.gallery import Gallery, galleries, galleries_of_two
from rbstream.lab.evaluate.scores import Part
from rbstream.lab.plot import png
from rbstream.output import atomic_write
from rbstream.report.stamps import NO_DATA_COLOUR, triplet_png
from rbstream.report.templates import page_environment


@dataclass(frozen=True)
class Image:
    """A PNG in the page; sizes in pixels."""

    uri: str
    width: int
    height: int
    alt: str


@dataclass(frozen=True)
class Plate:
    """A figure with what it shows."""

    heading: str
    text: str
    image: Image
    wide: bool = False


@dataclass(frozen=True)
class Exhibit:
    """A triplet in a gallery, with what is known of it."""

    image: Image
    scores: str
    real: bool
    name: str
    candid: int
    note: str


@dataclass(frozen=True)
class Room:
    """A gallery's section."""

    heading: str
    remark: str
    exhibits: list[Exhibit]


@dataclass(frozen=True)
class Chapter:
    """One network, or one pair."""

    name: str
    text: str
    plates: Sequence[Plate]
    rooms: Sequence[Room]
    table: Sequence[tuple[str, str, str]] = ()
    """Measure, as the data are, at the prevalence asked for."""


def write_page(path: str | Path, data: DataSet, results: Results) -> None:
    """Write the page, whole or not at all. Raises OutputError where it can't be written."""
    page = render(data, results)
    with atomic_write(path) as file:
        file.write(page.encode("utf-8", "replace"))


def render(data: DataSet, results: Results) -> str:
    """The page's HTML: the same for the same results."""
    environment = page_environment("rbstream.lab.evaluate")
    environment.filters |= {
        "percent": words.percent,
        "share": words.share,
        "number": words.number,
        "difference": words.difference,
    }
    chapters = [
        _chapter(each, galleries(score, verdict, results.test), data, results, [score])
        for each, score, verdict in zip(results.evaluations, results.scores, results.passing, strict=True)
    ]
    return environment.get_template("page.html.j2").render(
        title=_listed(results),
        data=data,
        results=results,
        parts=[part for part in (results.validation, results.test) if part is not None],
        together=_together(results),
        pair=_pair(data, results) if len(results.evaluations) == 2 else None,
        chapters=chapters,
        no_data="#" + bytes(NO_DATA_COLOUR).hex(),
    )


def _together(results: Results) -> list[Plate]:
    """Figures with all networks on the same axes."""
    found, names = results.evaluations, _listed(results)
    plates = [
        _plate("ROC", words.roc(found), figures.roc(found), f"ROC curve of {names}"),
        _plate(
            "Precision and recall", words.precision_recall(found), figures.precision_recall(found),
            f"Precision against recall of {names}",
        ),
    ]  # fmt: skip
    if results.edges:
        known = ", ".join(results.edges)
        figure = figures.recall_against(found, results.edges)
        plates.append(
            _plate("What is found", words.recall_against(found), figure, f"Recall against {known}", wide=True)
        )
    if any(found[0].kinds.values()):
        plates.append(_plate("By kind", words.kinds(found), figures.kinds(found), "Pass rate of each kind", wide=True))
    return plates


def _listed(results: Results) -> str:
    *others, last = (each.name for each in results.evaluations)
    return f"{', '.join(others)} and {last}" if others else last


def _chapter(
    each: Evaluation, hung: Sequence[Gallery], data: DataSet, results: Results, scores: Sequence[np.ndarray]
) -> Chapter:
    name = each.name
    plates = [
        _plate("Threshold", words.rates(each), figures.rates(each), f"FPR and FNR of {name} against the threshold"),
        _plate("Calibration", words.reliability(each), figures.reliability(each), f"Reliability diagram of {name}"),
        _plate(
            "Probabilities", words.probabilities(each), figures.probabilities(each),
            f"Histogram of {name}'s probabilities by class",
        ),
        _plate(
            "Probabilities of the misclassified", words.misclassified(each),
            figures.probabilities_of_misclassified(each), f"Histogram of the probabilities that {name} errs with",
        ),
        _plate(
            "Confusion", words.confusion(each), figures.confusion(each.confusion),
            f"Confusion matrices of {name}, counts and shares",
        ),
        _plate(
            "Where it is sure", words.confident(each), figures.confusion(each.confident.confusion),
            f"Confusion matrices of the alerts that {name} is sure of",
        ),
    ]  # fmt: skip
    as_is, there = each.measures
    table = [
        (word.replace("f1", "F1"), words.share(getattr(as_is, word)), words.share(getattr(there, word)))
        for word in ("accuracy", "precision", "recall", "f1")
    ]
    rooms = _rooms(hung, data, results.test, scores)
    return Chapter(name, words.night(each), plates, rooms, table)


def _pair(data: DataSet, results: Results) -> Chapter:
    (pair,) = results.comparisons
    wrong = [passing != results.test.real for passing in results.passing]
    hung = galleries_of_two(results.scores, wrong, (pair.first, pair.second), results.test)
    rooms = _rooms(hung, data, results.test, results.scores)
    return Chapter(f"{pair.first} and {pair.second}", words.comparison(pair), [], rooms)


def _plate(heading: str, text: str, figure: Figure, alt: str, *, wide: bool = False) -> Plate:
    return Plate(heading, text, _image(png(figure), alt), wide)


def _image(content: bytes, alt: str) -> Image:
    uri = "data:image/png;base64," + b64encode(content).decode()
    # As the PNG's own header says.
    return Image(uri, int.from_bytes(content[16:20], "big"), int.from_bytes(content[20:24], "big"), alt)


def _rooms(hung: Sequence[Gallery], data: DataSet, part: Part, scores: Sequence[np.ndarray]) -> list[Room]:
    rooms = []
    for gallery in hung:
        stamps = data.stamps(part.rows[gallery.places])
        exhibits = [
            _exhibit(stamp, int(place), data, part, scores) for stamp, place in zip(stamps, gallery.places, strict=True)
        ]
        shown = f"{len(exhibits)} of {gallery.n:,}" if gallery.n else "There are none"
        rooms.append(Room(gallery.heading, f"{gallery.remark}. {shown}.", exhibits))
    return rooms


def _exhibit(stamp: np.ndarray, place: int, data: DataSet, part: Part, scores: Sequence[np.ndarray]) -> Exhibit:
    row, truth = int(part.rows[place]), "real" if part.real[place] else "bogus"
    magnitude = float(part.about["magpsf"][place])
    notes = [truth, str(part.kind[place]), "" if np.isnan(magnitude) else f"{magnitude:.2f} mag"]
    name = str(data.column("object")[row])
    return Exhibit(
        _image(triplet_png(stamp), f"{', '.join(data.about.channels)} of {name}"),
        " / ".join(f"{score[place]:.4f}" for score in scores),
        bool(part.real[place]), name, int(data.column("candid")[row]), ", ".join(note for note in notes if note),
    )  # fmt: skip
