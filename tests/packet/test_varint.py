import io

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbstream.packet.varint import decode_long, encode_long

LONGS = st.integers(-(1 << 63), (1 << 63) - 1)


@given(LONGS, st.binary(max_size=3))
def test_longs_come_back_and_are_fastavros(value: int, before: bytes) -> None:
    buffer = io.BytesIO()
    fastavro.schemaless_writer(buffer, "long", value)
    assert encode_long(value) == buffer.getvalue()
    assert decode_long(before + encode_long(value) + b"x", len(before)) == (
        value,
        len(before) + len(encode_long(value)),
    )


@given(LONGS)
def test_a_long_that_is_cut_short_ends_the_data(value: int) -> None:
    with pytest.raises(EOFError):
        decode_long(encode_long(value)[:-1], 0)


@pytest.mark.parametrize("data", [b"\xff" * 10, b"\xff" * 9 + b"\x02", b"\x80" * 10 + b"\x00"])
def test_a_long_of_more_than_64_bits_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="64 bits"):
        decode_long(data, 0)
