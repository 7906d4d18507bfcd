"""The candidate of a packet: what was measured, and a survey around it that holds together.

Identifiers follow ZTF's own scheme: a `pid` is night, fraction of the day, readout channel and 15; a
`candid` is the `pid`, 010 or 015 for a negative or positive difference, and the row in the extraction table.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .alerts import Alerts
from .optics import Rng
from .scene import ZEROPOINT

Fields = dict[str, Any]

FIRST_NIGHT = 2457754.5  # Julian day of ZTF's `nid` 0
PIXEL = 1.012 / 3600  # deg
CHIP = (3072, 3080)  # px of a readout channel, x and y
EXPOSURE = 30.0  # s, of nearly every ZTF exposure
CADENCE = 40 / 86400  # days from one exposure to the next
PER_EXPOSURE = 200  # alerts: ZTF's are 100 to 1,000 an exposure
EXPOSURES = 800  # of 40 s: a night of nine hours; a longer simulation fills them again
NONE = -999.0  # what ZTF writes where a catalogue has nothing within reach
KNOWN = 0.7  # share of asteroids that are in the catalogue


def candidate(rng: Rng, seed: int, number: int, alerts: Alerts, i: int) -> Fields:
    """The candidate of alert `i` of a batch, `number` being its place in the night.

    `rb` and `drb` are null and their versions empty: nobody has scored it.
    """
    measured = {name: float(values[i]) for name, values in alerts.measured.items()}
    measured["nneg"] = int(measured["nneg"])
    exposure = number // PER_EXPOSURE % EXPOSURES
    rcid = int(rng.integers(64))
    fid = 1 + exposure // 2 % 2
    nid = 1000 + seed % 2000
    jd = round(FIRST_NIGHT + nid + 0.15 + exposure * CADENCE, 7)
    pid = processing_id(jd, rcid)
    positive = bool(alerts.found.positive[i])
    row = 1 + number % PER_EXPOSURE + PER_EXPOSURE * (number // (PER_EXPOSURE * EXPOSURES))
    x, y = (float(rng.uniform(32, side - 32)) for side in CHIP)
    ra, dec = position(exposure, rcid, x, y)
    angle = rng.uniform(0, 2 * np.pi)
    ranr, decnr = offset(ra, dec, measured["distnr"] * PIXEL, angle)
    noise = float(alerts.found.noise[i])
    # A 5-sigma point source in this noise, as in detect.py.
    limit = ZEROPOINT - 2.5 * np.log10(5 * noise * float(alerts.found.fwhm[i]) / 2.3548 * np.sqrt(4 * np.pi))
    return {
        "jd": jd,
        "fid": fid,
        "pid": pid,
        "diffmaglim": float(limit),
        "pdiffimfilename": f"simulated_{pid}_scimrefdiffimg.fits",
        "programpi": "rbstream",
        "programid": 1,
        "candid": pid * 1_000_000 + (15_000 if positive else 10_000) + row,
        "isdiffpos": "t" if positive else "f",
        "tblid": row,
        "nid": nid,
        "rcid": rcid,
        "field": 245 + exposure % 600,
        "xpos": x,
        "ypos": y,
        "ra": ra,
        "dec": dec,
        **measured,
        "sigmagnr": 0.02,
        "chinr": float(rng.gamma(8, 0.1)),
        "sharpnr": float(rng.normal(0, 0.05)),
        "classtar": float(rng.beta(6, 0.5)),
        "mindtoedge": min(x, y, CHIP[0] - x, CHIP[1] - y),
        "magfromlim": float(limit) - measured["magap"],
        "nbad": 0,
        "rb": None,
        "rbversion": "",
        "drb": None,
        "drbversion": "",
        "ranr": ranr,
        "decnr": decnr,
        "ndethist": int(rng.geometric(0.1)),
        "ncovhist": int(rng.integers(60, 1500)),
        "jdstarthist": jd - float(rng.uniform(0, 900)),
        "jdendhist": jd,
        "tooflag": 0,
        **_solar_system(rng, str(alerts.kind[i]), measured["magpsf"]),
        **_catalogues(rng, measured["distnr"], measured["magnr"]),
        "rfid": (245 + exposure % 600) * 1_000_000 + fid * 100_000 + rcid * 100 + 20,
        "jdstartref": FIRST_NIGHT + 450.4,
        "jdendref": FIRST_NIGHT + 800.2,
        "nframesref": int(rng.integers(15, 41)),
        **calibration(rng, fid),
        "nmatches": int(rng.integers(80, 1500)),
        "zpclrcov": -1e-5,
        "zpmed": ZEROPOINT - 0.07,
        "clrmed": 0.62,
        "clrrms": 0.24,
        "exptime": EXPOSURE,
    }


def processing_id(jd: float, rcid: int) -> int:
    """ZTF's `pid` of one readout channel of one exposure."""
    night, fraction = divmod(round((jd - FIRST_NIGHT) * 100_000), 100_000)
    return ((night * 100_000 + fraction) * 100 + rcid) * 100 + 15


def calibration(rng: Rng, fid: int) -> Fields:
    """The photometric calibration of an exposure. The zero point is that of the stamps."""
    return {
        "magzpsci": ZEROPOINT,
        "magzpsciunc": float(rng.uniform(2e-6, 6e-5)),
        "magzpscirms": float(rng.uniform(0.02, 0.07)),
        "clrcoeff": (-0.06, 0.1)[fid - 1] + float(rng.normal(0, 0.02)),
        "clrcounc": float(rng.uniform(2e-6, 1e-4)),
    }


def position(exposure: int, rcid: int, x: float, y: float) -> tuple[float, float]:
    """ra and dec in deg of a pixel. Pointings follow each other by the golden angle over Palomar's sky."""
    dec0 = -20 + (exposure * 61.8) % 90
    ra0 = (exposure * 137.508) % 360
    row, column = divmod(rcid, 8)
    dec = dec0 + (row - 4) * CHIP[1] * PIXEL + y * PIXEL
    ra = ra0 + ((column - 4) * CHIP[0] * PIXEL + x * PIXEL) / np.cos(np.radians(dec))
    return round(float(ra % 360), 7), round(float(dec), 7)


def offset(ra: float, dec: float, distance: float, angle: float) -> tuple[float, float]:
    """The position `distance` deg away; good to arcseconds over the size of a stamp."""
    north, east = distance * np.sin(angle), distance * np.cos(angle) / np.cos(np.radians(dec))
    return round(float((ra + east) % 360), 7), round(float(dec + north), 7)


def _solar_system(rng: Rng, kind: str, magpsf: float) -> Fields:
    known = kind == "asteroid" and rng.random() < KNOWN
    return {
        "ssdistnr": float(rng.exponential(0.5)) if known else NONE,
        "ssmagnr": magpsf + float(rng.normal(0, 0.3)) if known else NONE,
        "ssnamenr": str(int(rng.integers(1, 800_000))) if known else "null",
    }


def _catalogues(rng: Rng, distnr: float, magnr: float) -> Fields:
    """PS1 and Gaia: the reference's nearest source as they would list it, the rest at random."""
    nearest = distnr * PIXEL * 3600
    star = float(rng.random() < 0.6)
    fields: Fields = {"nmtchps": int(rng.geometric(0.1))}
    distances = np.sort(rng.uniform(nearest, 30, 2)) if nearest < 30 else np.full(2, 30.0)
    for rank, distance in enumerate((min(nearest, 30), *distances), start=1):
        magnitude = magnr if rank == 1 else float(rng.uniform(18, 22))
        fields |= {
            f"objectidps{rank}": int(rng.integers(10**16, 2 * 10**17)),
            f"sgscore{rank}": star if rank == 1 else float(rng.random()),
            f"distpsnr{rank}": float(distance),
        }
        fields |= {
            f"s{band}mag{rank}": magnitude + colour
            for band, colour in zip("griz", (0.3, 0.0, -0.15, -0.2), strict=True)
        }
    seen = magnr < 20.7  # where Gaia ends
    return fields | {
        "neargaia": nearest if seen else float(rng.uniform(20, 80)),
        "maggaia": magnr if seen else float(rng.uniform(16, 20)),
        "neargaiabright": NONE,
        "maggaiabright": NONE,
    }
