"""Avro's `int` and `long`: zig-zag, seven bits a byte, least significant first."""

# 64 bits in groups of seven: a longer run of continuation bytes is no Avro long.
MAX_BYTES = 10


def encode_long(value: int) -> bytes:
    """The Avro bytes of a signed 64-bit integer."""
    value = (value << 1) ^ (value >> 63)
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def decode_long(data: bytes | memoryview, position: int) -> tuple[int, int]:
    """The integer that starts at `position`, and the position behind it.

    Raises EOFError where the data end inside it, ValueError where it is longer than 64 bits.
    """
    value = shift = 0
    for index in range(position, position + MAX_BYTES):
        if index >= len(data):
            raise EOFError("the data end inside an Avro long")
        byte = data[index]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >> 64:
                break
            return (value >> 1) ^ -(value & 1), index + 1
        shift += 7
    raise ValueError("an Avro long of more than 64 bits")
