"""Which scenes a network was trained on, in a few kilobytes, so that an evaluation can tell whether it saw its test."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

KEPT = 1024
"""Scenes that a bundle remembers: 20 kB, and the share of others that were seen is known to 3 points."""


def sketch(objects: Iterable[str]) -> list[str]:
    """Hashes of up to `KEPT` of the objects, those of least hash: the same choice of any set that holds them."""
    return sorted({_hash(name) for name in objects})[:KEPT]


def share_seen(trained: Sequence[str], objects: Iterable[str]) -> float:
    """The share of the objects that were trained on: exact for up to `KEPT` trained ones, an estimate for more.

    Only those are looked at whose hash the sketch would have kept (Broder 1997, bottom-k); 0 where there are none.
    """
    known = set(trained)
    highest = max(known, default="") if len(known) >= KEPT else "g"  # beyond any hexadecimal
    looked_at = {found for found in map(_hash, set(objects)) if found <= highest}
    return len(looked_at & known) / len(looked_at) if looked_at else 0.0


def _hash(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:16]
