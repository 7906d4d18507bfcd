"""Synthetic alerts that look like ZTF's, with the truth beside them."""

from .alerts import triplets
from .night import TRUTH, simulate_night, truth_path

__all__ = ["TRUTH", "simulate_night", "triplets", "truth_path"]
