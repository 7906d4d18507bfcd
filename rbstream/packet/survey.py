"""What a survey's packets look like: which schemas are its own, and where its cutouts are."""

from collections.abc import Mapping
from dataclasses import dataclass

from rbstream.errors import UsageError


@dataclass(frozen=True)
class Survey:
    """schemas: full names of its alert schema; cutouts: path of each channel's stamp in the record."""

    name: str
    schemas: frozenset[str]
    cutouts: Mapping[str, str]


ZTF = Survey(
    name="ztf",
    # ZTF's own name, and the one that Spark gives to what Fink has read and written again.
    schemas=frozenset({"ztf.alert", "topLevelRecord"}),
    cutouts={
        "science": "cutoutScience.stampData",
        "template": "cutoutTemplate.stampData",
        "difference": "cutoutDifference.stampData",
    },
)

_SURVEYS = {survey.name: survey for survey in (ZTF,)}


def survey_named(name: str) -> Survey:
    """The survey that a bundle's manifest names. Raises UsageError for one that is not known."""
    if name not in _SURVEYS:
        raise UsageError(f"the model is for survey {name!r}; known are {', '.join(_SURVEYS)}")
    return _SURVEYS[name]
