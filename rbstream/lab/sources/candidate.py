"""What a candidate says of itself, ZTF's or Rubin's, as a data set has it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

ZTF_FIELDS = frozenset({"jd", "magpsf", "fwhm", "scorr", "isdiffpos", "ssdistnr"})
"""Fields of ZTF's candidates that are wanted."""

KNOWN_ASTEROID = "known asteroid"
"""Who says that it is real: the catalogue of the solar system."""

_SAME_PLACE = 2.0  # arcsec: two of ZTF's pixels; ephemerides and centroids are better than one
_NOTHING = -999.0  # what ZTF writes where there is nothing
_MJD = 2400000.5  # days from Julian day 0 to modified Julian day 0
_LAST_DAY = 1e7  # JD: year 22,666; what is later, or no number, is no night
_NANOJANSKY = 31.4  # mag: AB zero point of fluxes in nJy

Said = dict[str, Any]


def of_candidate(fields: Mapping[str, Any]) -> tuple[Said, bool]:
    """Columns by name, absent or None where unknown, and whether it is a known asteroid.

    fields: of ZTF's `candidate` with `objectId`, or of Rubin's `diaSource`.
    """
    return _rubin(fields) if "diaSourceId" in fields else _ztf(fields)


def _ztf(fields: Mapping[str, Any]) -> tuple[Said, bool]:
    said = {
        "candid": fields.get("candid"),
        "object": str(fields.get("objectId") or ""),
        "night": _day(fields.get("jd")),
        "magpsf": _number(fields.get("magpsf")),
        "fwhm": _number(fields.get("fwhm")),
        "snr": _number(fields.get("scorr")),
        "drb": _number(fields.get("drb")),
        "positive": _POSITIVE.get(fields.get("isdiffpos")),
    }
    distance = _number(fields.get("ssdistnr"))
    return said, distance is not None and 0 <= distance < _SAME_PLACE


# Seen in ZTF's packets: letters, and digits in the oldest.
_POSITIVE: Mapping[Any, int] = {"t": 1, "1": 1, True: 1, "f": 0, "0": 0, False: 0}


def _rubin(fields: Mapping[str, Any]) -> tuple[Said, bool]:
    asteroid, mjd = fields.get("ssObjectId") or 0, fields.get("midpointMjdTai")
    flux, negative = _number(fields.get("psfFlux")), fields.get("isNegative")
    said = {
        "candid": fields["diaSourceId"],
        "object": str(fields.get("diaObjectId") or asteroid or ""),
        "night": None if mjd is None else _day(mjd + _MJD),
        "magpsf": _NANOJANSKY - 2.5 * math.log10(abs(flux)) if flux else None,
        "snr": _number(fields.get("snr")),
        "drb": _number(fields.get("reliability")),
        "positive": None if negative is None else int(not negative),
    }
    return said, bool(asteroid)


def _day(jd: float | None) -> int | None:
    return int(jd) if jd is not None and 0 <= jd < _LAST_DAY else None


def _number(value: Any) -> float | None:
    return None if value is None or value == _NOTHING else float(value)
