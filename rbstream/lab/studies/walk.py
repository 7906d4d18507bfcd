"""A study as a folder: a page to walk through, its figures as files, and all numbers in `study.json`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from rbstream.lab.plot import save
from rbstream.output import atomic_write
from rbstream.report.templates import page_environment

PAGE, NUMBERS = "index.html", "study.json"


@dataclass
class Chapter:
    """A heading, what is said, and figures by file name with what each shows."""

    heading: str
    paragraphs: list[str] = field(default_factory=list)
    figures: list[tuple[str, str]] = field(default_factory=list)
    table: Sequence[Sequence[str]] = ()
    """Rows of cells, the first of them the head."""

    def say(self, *paragraphs: str) -> None:
        self.paragraphs.extend(paragraphs)


class Walk:
    """Collects a study's chapters in a folder; figures are written as they come, page and numbers at the end."""

    def __init__(self, folder: Path, title: str, lead: str) -> None:
        self._folder, self._title, self._lead = folder, title, lead
        self._chapters: list[Chapter] = []
        self.numbers: dict[str, Any] = {}
        """Everything the text says in numbers, for `study.json`."""

    def chapter(self, heading: str, *paragraphs: str) -> Chapter:
        """Begin a chapter."""
        self._chapters.append(Chapter(heading, list(paragraphs)))
        return self._chapters[-1]

    def figure(self, name: str, figure: Figure, caption: str) -> None:
        """Write a figure as `name`.png, and hang it into the present chapter."""
        save(figure, self._folder / f"{name}.png")
        self._chapters[-1].figures.append((f"{name}.png", caption))

    def write(self) -> None:
        """The page and the numbers."""
        page = (
            page_environment("rbstream.lab.studies")
            .get_template("walk.html.j2")
            .render(title=self._title, lead=self._lead, chapters=self._chapters)
        )
        with atomic_write(self._folder / PAGE) as file:
            file.write(page.encode())
        with atomic_write(self._folder / NUMBERS) as file:
            file.write((json.dumps(self.numbers, indent=1) + "\n").encode())
