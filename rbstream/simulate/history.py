"""What came before an alert at its position: detections, upper limits and forced photometry of 30 days."""

from __future__ import annotations

import numpy as np

from .candidate import CHIP, EXPOSURE, FIRST_NIGHT, PIXEL, Fields, calibration, offset, processing_id
from .optics import Rng
from .scene import ZEROPOINT

_WINDOW = 30.0  # days: how far ZTF's packets look back
_SHORTEST, _LONGEST = 20, 65  # entries: ZTF's are 20 to 65
_DETECTED = 0.3  # share of the entries that are detections; the rest are upper limits
_FORCED = 20  # forced measurements: the last ones, as in ZTF's 4.02 packets (10 to 21)
_SCATTER = 0.2 / 3600  # deg: the astrometric error of a faint detection

# What an earlier detection repeats of the candidate's own measurements: the kind of source is the same.
_WIDTHS = ("fwhm", "seeratio", "aimage", "bimage", "aimagerat", "bimagerat", "elong", "classtar")
_PIXELS = ("chipsf", "magdiff", "sky", "nneg", "nbad", "sumrat")
_NEAREST = ("distnr", "magnr", "sigmagnr", "chinr", "sharpnr", "ranr", "decnr")
_REPEATED = (*_WIDTHS, *_PIXELS, *_NEAREST)
# What a forced measurement takes over from its entry.
_EXPOSURE = ("field", "rcid", "fid", "pid", "diffmaglim", "programid", "jd")
_COPIED = (*_EXPOSURE, "magzpsci", "magzpsciunc", "magzpscirms", "clrcoeff", "clrcounc")


def history(rng: Rng, candidate: Fields) -> tuple[list[Fields], list[Fields]]:
    """`prv_candidates` and `fp_hists` of a candidate, each in the order of time."""
    length = int(rng.integers(_SHORTEST, _LONGEST + 1))
    when = np.sort(candidate["jd"] - rng.uniform(0.02, _WINDOW, length))
    detected = rng.random(length) < _DETECTED * rng.random()  # some sources are new, some are often seen
    # One calibration a filter: it hardly moves within 30 days, and drawing it for each entry costs a ms.
    calibrations = {fid: calibration(rng, fid) for fid in (1, 2)}
    fids = rng.integers(1, 3, length).tolist()
    limits = (candidate["diffmaglim"] + rng.normal(0, 0.3, length)).tolist()
    entries = [
        _upper_limit(candidate, jd, fid, limit) | calibrations[fid]
        for jd, fid, limit in zip(when.tolist(), fids, limits, strict=True)
    ]
    for i in np.flatnonzero(detected):
        entries[i] |= _detection(rng, candidate, entries[i]["pid"])
    return entries, _forced(rng, candidate, entries[-_FORCED:])


def _upper_limit(candidate: Fields, jd: float, fid: int, limit: float) -> Fields:
    pid = processing_id(jd, candidate["rcid"])
    return {
        "jd": round(jd, 7),
        "fid": fid,
        "pid": pid,
        "diffmaglim": limit,
        "pdiffimfilename": f"simulated_{pid}_scimrefdiffimg.fits",
        "programpi": candidate["programpi"],
        "programid": 1,
        "candid": None,
        "isdiffpos": None,
        "nid": int(jd - FIRST_NIGHT),
        "rcid": candidate["rcid"],
        "field": candidate["field"],
        "ra": None,
        "dec": None,
        "magpsf": None,
        "sigmapsf": None,
        "ranr": None,
        "decnr": None,
        "rbversion": "",
    }


def _detection(rng: Rng, candidate: Fields, pid: int) -> Fields:
    """The fields that an upper limit lacks."""
    ra, dec = offset(candidate["ra"], candidate["dec"], abs(float(rng.normal(0, _SCATTER))), rng.uniform(0, 2 * np.pi))
    row = int(rng.integers(1, 200))
    magpsf = candidate["magpsf"] + float(rng.normal(0, 0.2))
    x, y = float(rng.uniform(32, CHIP[0] - 32)), float(rng.uniform(32, CHIP[1] - 32))
    return {
        **{name: candidate[name] for name in _REPEATED},
        "candid": pid * 1_000_000 + (15_000 if candidate["isdiffpos"] == "t" else 10_000) + row,
        "isdiffpos": candidate["isdiffpos"],
        "tblid": row,
        "xpos": x,
        "ypos": y,
        "ra": ra,
        "dec": dec,
        "magpsf": magpsf,
        "sigmapsf": candidate["sigmapsf"],
        "magap": magpsf + candidate["magdiff"],
        "sigmagap": candidate["sigmagap"],
        "magapbig": candidate["magapbig"],
        "sigmagapbig": candidate["sigmagapbig"],
        "mindtoedge": min(x, y, CHIP[0] - x, CHIP[1] - y),
        "magfromlim": candidate["diffmaglim"] - magpsf - candidate["magdiff"],
        "ssdistnr": -999.0,
        "ssmagnr": -999.0,
        "ssnamenr": "null",
        "scorr": candidate["scorr"],
    }


def _forced(rng: Rng, candidate: Fields, entries: list[Fields]) -> list[Fields]:
    """Forced measurements: the flux of each entry's detection, or noise at the depth of its limit."""
    drawn = rng.random((len(entries), 5)).tolist()
    noise = rng.standard_normal(len(entries)).tolist()
    sign = 1 if candidate["isdiffpos"] == "t" else -1
    shared = {
        "rfid": candidate["rfid"],
        "exptime": EXPOSURE,
        "procstatus": "0",
        "distnr": candidate["distnr"] * PIXEL * 3600,
        **{name: candidate[name] for name in ("ranr", "decnr", "magnr", "sigmagnr", "chinr", "sharpnr")},
    }
    measurements = []
    for entry, (seeing, sky, sigma, east, north), scatter in zip(entries, drawn, noise, strict=True):
        error = 10 ** (0.4 * (ZEROPOINT - entry["diffmaglim"])) / 5
        flux = 0.0 if entry["magpsf"] is None else sign * 10 ** (0.4 * (ZEROPOINT - entry["magpsf"]))
        measurements.append(
            shared
            | {name: entry[name] for name in _COPIED}
            | {
                # The ranges of real packets: 1.7 to 3.4 px, 45 to 330 DN, 4.5 to 12 DN, 0.05" to 0.2".
                "sciinpseeing": 1.7 + 1.7 * seeing,
                "scibckgnd": 45 + 285 * sky,
                "scisigpix": 4.5 + 7.5 * sigma,
                "adpctdif1": 0.05 + 0.15 * east,
                "adpctdif2": 0.05 + 0.15 * north,
                "forcediffimflux": flux + error * scatter,
                "forcediffimfluxunc": error,
            }
        )
    return measurements
