"""What the reasons of rejections mean, and what to do: read from docs/rejections.md, which travels with the package."""

import re
from functools import cache
from typing import NamedTuple

from rbstream.files import data_path

_ROW = re.compile(r"^\| (\w+) \| `(\w+)` \| (.+?) \| (.+?) \|$", re.MULTILINE)


class Explanation(NamedTuple):
    """For people: what a reason means, and what to do."""

    meaning: str
    remedy: str


def explain(stage: str, reason: str) -> Explanation | None:
    """The explanation of a stage and reason; None for one that this version doesn't know."""
    return _table().get((stage, reason))


@cache
def _table() -> dict[tuple[str, str], Explanation]:
    text = data_path("docs/rejections.md").read_text(encoding="utf-8")
    return {(stage, reason): Explanation(*words) for stage, reason, *words in _ROW.findall(text)}
