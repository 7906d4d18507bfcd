"""Cutouts: astropy's reading bit for bit, whatever the file; and a rejection for all that is no image."""

import gzip
import io
import random
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
import pytest
from astropy.io import fits
from bounds import bounded
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from rbstream import cutout
from rbstream.cutout import decode_cutout
from rbstream.errors import Rejection
from rbstream.settings import Limits

LIMITS = Limits()
MIB = 1 << 20
budget = settings(max_examples=100, deadline=None, derandomize=True)
IMAGE = np.arange(63 * 63, dtype=np.float32).reshape(63, 63)


def by_astropy(data: bytes) -> NDArray[np.float32]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plain = gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data
        return np.asarray(fits.open(io.BytesIO(plain), ignore_missing_simple=True)[0].data, np.float32)


def bits(image: NDArray[np.float32]) -> tuple[tuple[int, ...], bytes]:
    """Shape and native bytes, so that NaN equals NaN and every payload counts."""
    assert image.dtype.kind == "f"
    assert image.dtype.itemsize == 4
    return image.shape, image.astype("<f4").tobytes()


def written(image: Any, **cards: Any) -> bytes:
    """A FITS file of one image. cards: of its header."""
    hdu = fits.PrimaryHDU(image)
    hdu.header.update(cards)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        hdu.writeto(buffer, output_verify="ignore")
    return buffer.getvalue()


def by_hand(*cards: str, data: bytes = IMAGE.astype(">f4").tobytes(), pad: bool = True) -> bytes:
    """A FITS file whose cards are as they are given."""
    header = b"".join(card.ljust(80).encode() for card in cards)
    header += b" " * (-len(header) % 2880)
    return header + data + bytes(-len(data) % 2880 if pad else 0)


def reason(data: bytes, limits: Limits = LIMITS) -> str:
    with pytest.raises(Rejection) as caught:
        decode_cutout(data, limits)
    assert caught.value.stage == "cutout"
    return caught.value.reason


@pytest.fixture
def in_bounds() -> Iterator[None]:
    """Fails a test that takes more than 48 MiB or 10 s."""
    with bounded(48, 10):
        yield


@budget
@given(hnp.arrays(np.uint32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=70)), st.booleans())
def test_float_images_of_any_bits_and_shape_are_read_without_astropy(pattern: NDArray[Any], zipped: bool) -> None:
    image = pattern.view(np.float32)
    data = written(image.astype(">f4"))
    data = gzip.compress(data) if zipped else data
    assert cutout._direct_shape(written(image)[:2880]) == image.shape
    assert bits(decode_cutout(data, LIMITS)) == bits(image) == bits(by_astropy(data))


@pytest.mark.parametrize("fill", [np.nan, np.inf, -np.inf, -3.4e38, 0, -0.0, 1e-45])
def test_masks_and_fills_are_kept_bit_for_bit(fill: float) -> None:
    image = IMAGE.copy()
    image[3:9, 5:] = fill
    assert bits(decode_cutout(gzip.compress(written(image)), LIMITS)) == bits(image)


SHAPES = hnp.array_shapes(min_dims=2, max_dims=2, max_side=8)
IMAGES = st.sampled_from(["u1", ">i2", ">i4", ">i8", ">f4", ">f8"]).flatmap(lambda kind: hnp.arrays(kind, SHAPES))


@budget
@given(
    IMAGES,
    st.none() | st.sampled_from([0, 1, 32768, 2147483648, -1.5, 1e300]),
    st.none() | st.sampled_from([1, 2, 0.5, -3.25, 0]),
    st.none() | st.integers(-5, 5),
    st.integers(0, 80),
)
def test_every_pixel_type_and_scaling_is_as_astropy_reads_it(
    image: NDArray[Any], zero: float | None, scale: float | None, blank: int | None, more: int
) -> None:
    plain = written(image)
    cards = {"BZERO": zero, "BSCALE": scale, "BLANK": blank, **{f"CARD{n}": n for n in range(more)}}
    header = fits.Header.fromstring(plain[:2880].decode())
    header.update({name: value for name, value in cards.items() if value is not None})
    data = header.tostring().encode() + plain[2880:]
    assert bits(decode_cutout(data, LIMITS)) == bits(by_astropy(data))
    assert bits(decode_cutout(gzip.compress(data), LIMITS)) == bits(by_astropy(data))


PLAIN = ["SIMPLE  =                    T", "BITPIX  =                  -32", "NAXIS   =                    2"]
SIDES = ["NAXIS1  =                   63", "NAXIS2  =                   63"]
WHOLE = [*PLAIN, *SIDES]
READ = {
    "plainly": (*WHOLE, "END"),
    "comments": (*WHOLE, "COMMENT = 'BZERO' / BZERO = 5", "HISTORY made by hand", "", "END"),
    "comments behind values": (*(f"{card} / one / two" for card in WHOLE), "END"),
    "values anywhere": (
        "SIMPLE  = T",
        "BITPIX  = -32",
        "NAXIS   =   2",
        "NAXIS1  = 063",
        "NAXIS2  =  +63",
        "END",
    ),
    "no SIMPLE": (*WHOLE[1:], "END"),
    "SIMPLE is F": ("SIMPLE  =                    F", *WHOLE[1:], "END"),
    "many cards": (*WHOLE, *(f"KEY{n:05d}= {n}" for n in range(100)), "END"),
    "BZERO": (*WHOLE, "BZERO   =                  5.5", "END"),
    "bzero in small letters": (*WHOLE, "bzero   =                  5.5", "END"),
    "BZERO, HIERARCH": (*WHOLE, "HIERARCH BZERO = 5.5", "END"),
    "BSCALE behind END": (*WHOLE, "END", "BSCALE  =                  2.0"),
    "BLANK on floats": (*WHOLE, "BLANK   =                    5", "END"),
    "a side twice": (*WHOLE, "NAXIS1  =                   21", "END"),
    "EXTEND": (*WHOLE, "EXTEND  =                    T", "END"),
    "sides first": (PLAIN[0], PLAIN[1], *SIDES, PLAIN[2], "END"),
    "no space behind =": (*PLAIN, "NAXIS1  =63", SIDES[1], "END"),
    "a side as text": (*PLAIN, "NAXIS1  = '63'", SIDES[1], "END"),
    "a side as float": (*PLAIN, "NAXIS1  = 63.0", SIDES[1], "END"),
    "EXTEND that is no T or F": (*WHOLE, "EXTEND  =     1              T", "END"),
    "PCOUNT": (*WHOLE, "PCOUNT  = 0", "GCOUNT  = 1", "END"),
    "END with a value": (*WHOLE, "END     = 5", "END"),
    "a letter that isn't ASCII": (*WHOLE, "OBSERVER= 'Müller'", "END"),
    "a tab": (*PLAIN, "NAXIS1  =\t63", SIDES[1], "END"),
}


@pytest.mark.parametrize("cards", READ.values(), ids=READ.keys())
def test_odd_headers_mean_what_astropy_says_or_are_rejected(cards: tuple[str, ...]) -> None:
    data = by_hand(*cards)
    try:
        expected = by_astropy(data)
    except Exception:  # astropy's errors are of many kinds
        assert reason(data) in ("cutout_fits", "cutout_shape")
    else:
        if expected.ndim == 2:
            assert bits(decode_cutout(data, LIMITS)) == bits(expected)
        else:
            assert reason(data) in ("cutout_fits", "cutout_shape")


def axes(*sides: int) -> tuple[str, ...]:
    return (
        *PLAIN[:2],
        f"NAXIS   = {len(sides)}",
        *(f"NAXIS{n}  = {s}" for n, s in enumerate(sides, 1)),
        "END",
    )


REFUSED = {
    "no axes": (by_hand(*axes(), data=b""), "cutout_shape"),
    "one axis": (by_hand(*axes(63), data=bytes(252)), "cutout_shape"),
    "three axes": (by_hand(*axes(3, 3, 3), data=bytes(108)), "cutout_shape"),
    "no pixels": (by_hand(*axes(0, 63)), "cutout_shape"),
    "a negative side": (by_hand(*axes(-63, 63)), "cutout_fits"),
    "too long a side": (by_hand(*axes(1025, 1), data=bytes(4100)), "cutout_shape"),
    "an absurd side": (by_hand(*axes(10**17, 10**17)), "cutout_fits"),
    "an absurd side of bytes": (by_hand(PLAIN[0], "BITPIX  = 8", *axes(10**9, 10**9)[2:]), "cutout_shape"),
    "cut short": (by_hand(*WHOLE, "END")[:12000], "cutout_fits"),
    "header only": (by_hand(*WHOLE, "END", data=b""), "cutout_fits"),
    "half a header": (by_hand(*WHOLE, "END")[:1000], "cutout_fits"),
    "no END": (by_hand(*WHOLE), "cutout_fits"),
    "no NAXIS2": (by_hand(*PLAIN, SIDES[0], "END"), "cutout_fits"),
    "BITPIX is 5": (by_hand(PLAIN[0], "BITPIX  = 5", *WHOLE[2:], "END"), "cutout_fits"),
    "NAXIS is text": (by_hand(*PLAIN[:2], "NAXIS   = 'two'", *SIDES, "END"), "cutout_fits"),
    "nothing": (b"", "cutout_fits"),
    "text": (b"stamp" * 1000, "cutout_fits"),
    "zeros": (bytes(20160), "cutout_fits"),
    "gzip in gzip": (gzip.compress(gzip.compress(written(IMAGE))), "cutout_fits"),
    "gzip cut short": (gzip.compress(written(IMAGE))[:-20], "cutout_gzip"),
    "gzip's magic only": (b"\x1f\x8b", "cutout_gzip"),
    "gzip with a wrong checksum": (gzip.compress(written(IMAGE))[:-8] + bytes(8), "cutout_gzip"),
    "junk behind gzip": (gzip.compress(written(IMAGE)) + b"junk of eight", "cutout_gzip"),
    "a gzip bomb": (gzip.compress(bytes(64 * MIB)), "too_large"),
    "a gzip bomb that lies": (gzip.compress(bytes(64 * MIB))[:-4] + b"\0\x10\0\0", "too_large"),
    "a gzip bomb of members": (gzip.compress(bytes(3 * MIB)) * 5, "too_large"),
    "100,000 gzip members": (gzip.compress(b"") * 100_000, "cutout_gzip"),
    "a header without end": (by_hand(*PLAIN, *["COMMENT"] * 50_000), "cutout_fits"),
    "a plain file over the limit": (by_hand(*WHOLE, "END") + bytes(4 * MIB), "too_large"),
}


@pytest.mark.parametrize(("data", "expected"), REFUSED.values(), ids=REFUSED.keys())
@pytest.mark.usefixtures("in_bounds")
def test_what_is_no_image_is_rejected_in_bounds(data: bytes, expected: str) -> None:
    assert reason(data) == expected


def test_gzip_of_several_members_padded_or_with_a_lie_at_the_end_is_read_whole() -> None:
    plain = written(IMAGE)
    half = len(plain) // 2
    whole = gzip.compress(plain)
    parts = gzip.compress(plain[:half]) + gzip.compress(plain[half:])
    equal = b"".join(gzip.compress(plain[at : at + 2880]) for at in range(0, len(plain), 2880))
    named = zlib.compressobj(9, zlib.DEFLATED, 31)
    for data in (
        whole,
        whole + bytes(512),
        parts,
        parts + bytes(9),
        equal,
        named.compress(plain) + named.flush(),
    ):
        assert bits(decode_cutout(data, LIMITS)) == bits(IMAGE)


def test_limits_are_settings() -> None:
    data = gzip.compress(written(IMAGE))
    assert reason(data, Limits(cutout_side=62)) == "cutout_shape"
    assert reason(data, Limits(cutout_bytes=10_000)) == "too_large"
    assert reason(written(IMAGE), Limits(cutout_bytes=10_000)) == "too_large"
    assert decode_cutout(data, Limits(cutout_side=63, cutout_bytes=20160)).shape == (63, 63)


@pytest.mark.usefixtures("in_bounds")
def test_damaged_stamps_are_arrays_or_rejections_and_both_ways_agree() -> None:
    draw = random.Random(5)
    plain = written(IMAGE)
    for _ in range(300):
        data = bytearray(plain)
        for _ in range(draw.randrange(1, 6)):
            at = draw.randrange(0, 480)
            data[at] = draw.choice(b" =T'/0123456789-.E\0\xff") if draw.random() < 0.7 else draw.randrange(256)
        try:
            image = decode_cutout(bytes(data), LIMITS)
        except Rejection:
            continue
        assert bits(image) == bits(by_astropy(bytes(data)))
    zipped = gzip.compress(plain)
    for _ in range(300):
        data = bytearray(zipped)
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        try:
            assert decode_cutout(bytes(data), LIMITS).ndim == 2
        except Rejection as rejection:
            assert rejection.reason in {"cutout_gzip", "cutout_fits", "too_large"}  # noqa: PT017


def test_every_real_stamp_is_as_astropy_reads_it(shared_data: Path) -> None:
    seen = 0
    for path in sorted((shared_data / "ztf/alerts").glob("*.avro")):
        with path.open("rb") as file:
            for record in fastavro.reader(file):
                for name in ("Science", "Template", "Difference"):
                    data = record[f"cutout{name}"]["stampData"]  # type: ignore[index, call-overload]
                    assert bits(decode_cutout(data, LIMITS)) == bits(by_astropy(data))
                    seen += 1
    assert seen == 600
