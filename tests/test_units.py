"""Durations and sizes: what is written is what is meant, and what is shown reads back as the same number."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbstream.units import format_duration, format_size, parse_duration, parse_size


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("100ms", 0.1), ("700ms", 0.7), ("10s", 10), ("15min", 900), ("1h", 3600), ("2d", 172_800), ("1.5h", 5400),
        ("0", 0), ("12", 12), (12, 12), (0.25, 0.25), (" 3 s ", 3), ("15 MIN", 900), ("1e3ms", 1),
    ],
)  # fmt: skip
def test_durations_are_seconds(written: object, seconds: float) -> None:
    assert parse_duration(written) == seconds


@pytest.mark.parametrize(
    ("written", "size"),
    [
        ("512B", 512), ("64kB", 64_000), ("64KiB", 65_536), ("32MiB", 33_554_432), ("32mib", 33_554_432),
        ("1MB", 1_000_000), ("1GiB", 1 << 30), ("2GB", 2_000_000_000), ("0.5KiB", 512), ("7", 7), (7, 7), (7.0, 7),
    ],
)  # fmt: skip
def test_sizes_are_bytes(written: object, size: int) -> None:
    assert parse_size(written) == size


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("5m", "'m' is no unit of a duration, e.g. 10s; there are d, h, min, s, ms"), ("", "expected a duration"),
        ("-1s", "expected a duration"), ("1,5s", "expected a duration"), ("nan", "expected a duration"),
        (float("nan"), "expected a duration"), (float("inf"), "expected a duration"), (-1, "expected a duration"),
        (True, "expected a duration"), (None, "expected a duration"), ([], "expected a duration"),
        ("1s 500ms", "expected a duration"), ("1e400s", "too large"), ("٣s", "expected a duration"),
    ],
)  # fmt: skip
def test_what_is_no_duration_is_told(written: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_duration(written)


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("32M", "'M' is no unit of a size"), ("32Mib/s", "expected a size"), ("1,5MiB", "expected a size"),
        ("0.3B", "not a whole number of bytes"), (0.5, "not a whole number of bytes"), ("10000000000GiB", "too large"),
        (False, "expected a size"),
    ],
)  # fmt: skip
def test_what_is_no_size_is_told(written: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_size(written)


@given(st.floats(min_value=0, max_value=1e18))
def test_a_duration_reads_back_as_it_was(seconds: float) -> None:
    assert parse_duration(format_duration(seconds)) == seconds


@given(st.integers(min_value=0, max_value=(1 << 63) - 1))
def test_a_size_reads_back_as_it_was(size: int) -> None:
    assert parse_size(format_size(size)) == size


@given(st.integers(min_value=0, max_value=10**9), st.sampled_from(["ms", "s", "min", "h"]))
def test_whole_numbers_of_a_unit_are_exact_and_shown_without_fractions(number: int, unit: str) -> None:
    seconds = parse_duration(f"{number}{unit}")
    assert "." not in format_duration(seconds)
    assert parse_duration(format_duration(seconds)) == seconds
