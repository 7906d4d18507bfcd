"""A night of simulated alerts on disk, with the truth beside it."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fastavro
import numpy as np

from ..files import data_path
from ..output import atomic_write
from .alerts import BATCH, Alerts, alerts
from .candidate import Fields, candidate
from .history import history
from .stamp import stamp_data

SCHEMA = "schemas/ztf.alert.avsc"
TRUTH = ("candid", "objectId", "real", "kind", "magpsf", "snr", "isdiffpos", "rows", "columns", "masked")
_STAMPS = {"cutoutScience": "sci", "cutoutTemplate": "ref", "cutoutDifference": "diff"}
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def truth_path(path: Path) -> Path:
    """Where the truth of a night lies: `night.truth.csv` beside `night.avro`."""
    return path.with_name(path.stem + ".truth.csv")


def simulate_night(
    path: str | Path, alerts: int, seed: int, progress: Callable[[int], None] | None = None
) -> dict[str, int]:
    """Write a night of alerts as an Avro object container, and their truth in a table beside it.

    The container (ZTF's schema 4.02, codec null, one record a block of about 76 kB) and the table
    (`truth_path`: columns TRUTH; `real` is 1 or 0, `masked` the share of NaN in the stamps) hold the same
    bytes for the same `alerts` and `seed`. Both get their final names only when they are whole. `progress`
    is called with the number of alerts written so far.

    Returns how many alerts there are of each kind. Raises ValueError for less than one alert or a negative
    seed, OutputError where the files can't be written.
    """
    if alerts < 1 or seed < 0:
        raise ValueError(f"a night has at least 1 alert and a seed of at least 0, not {alerts} and {seed}")
    path = Path(path)
    schema = fastavro.parse_schema(json.loads(data_path(SCHEMA).read_text()))
    # Derived, not random: the same night has the same bytes.
    marker = hashlib.md5(f"rbstream {alerts} {seed}".encode(), usedforsecurity=False).digest()
    kinds: Counter[str] = Counter()
    # The truth is renamed first: where a night is, its truth is.
    with atomic_write(path) as night, atomic_write(truth_path(path)) as table:
        rows = csv.writer(io.TextIOWrapper(table, newline="", write_through=True), lineterminator="\n")
        rows.writerow(TRUTH)

        def records() -> Iterator[Fields]:
            for number, (packet, row) in enumerate(packets(alerts, seed), start=1):
                yield packet
                rows.writerow(row)
                kinds[row[3]] += 1
                if progress is not None:
                    progress(number)

        # An interval of one byte ends the block after each record.
        fastavro.writer(
            night,
            schema,
            records(),
            codec="null",
            sync_interval=1,
            sync_marker=marker,
            disable_tuple_notation=True,
        )
    return dict(sorted(kinds.items()))


def packets(n: int, seed: int) -> Iterator[tuple[Fields, tuple[Any, ...]]]:
    """The packets of a night as the schema's records, each with its row of the truth table."""
    for batch, group in enumerate(alerts(n, seed)):
        # The packets' own stream: the stamps don't depend on what is drawn here.
        rng = np.random.default_rng([seed, batch, 1])
        for i in range(len(group.real)):
            fields = candidate(rng, seed, batch * BATCH + i, group, i)
            name = "ZTF" + f"{17 + fields['nid'] // 365}" + "".join(rng.choice(list(_LETTERS), 7))
            yield _packet(rng, name, fields, group, i), _truth(name, fields, group, i)


def _packet(rng: np.random.Generator, name: str, fields: Fields, group: Alerts, i: int) -> Fields:
    previous, forced = history(rng, fields)
    rows, columns = group.shape[i]
    cutouts = {
        field: {
            "fileName": f"candid{fields['candid']}_{suffix}.fits.gz",
            "stampData": stamp_data(group.found.stamps[i, channel, :rows, :columns]),
        }
        for channel, (field, suffix) in enumerate(_STAMPS.items())
    }
    return {
        "schemavsn": "4.02",
        "publisher": "rbstream simulate",
        "objectId": name,
        "candid": fields["candid"],
        "candidate": fields,
        "prv_candidates": previous,
        "fp_hists": forced,
        **cutouts,
    }


def _truth(name: str, fields: Fields, group: Alerts, i: int) -> tuple[Any, ...]:
    rows, columns = (int(side) for side in group.shape[i])
    masked = float(np.isnan(group.found.stamps[i, :, :rows, :columns]).mean())
    return (
        fields["candid"],
        name,
        int(group.real[i]),
        str(group.kind[i]),
        f"{fields['magpsf']:.3f}",
        f"{group.found.snr[i]:.2f}",
        fields["isdiffpos"],
        rows,
        columns,
        f"{masked:.4f}",
    )
