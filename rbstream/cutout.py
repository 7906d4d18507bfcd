"""Cutouts: gzipped or plain FITS primary images to arrays."""

import io
import warnings
import zlib
from functools import lru_cache
from typing import Any

import deflate
import numpy as np
from numpy.typing import NDArray

from rbstream.errors import Rejection
from rbstream.settings import Limits

STAGE = "cutout"
GZIP_MAGIC = b"\x1f\x8b"
CARD, HEADER_BLOCK = 80, 2880  # FITS standard 4.0, section 3.3.1
# ZTF's stamps share one header each shape; 256 leave room for a survey that writes numbers into them.
CACHED_HEADERS = 256
_STRUCTURE = ("SIMPLE", "BITPIX", "NAXIS", "NAXIS1", "NAXIS2")
# What changes the meaning of the pixels, and so is astropy's to read.
_SCALED = frozenset({"BSCALE", "BZERO", "BLANK", "XTENSION", "ZIMAGE", "GROUPS"})


def decode_cutout(data: bytes, limits: Limits) -> NDArray[np.float32]:
    """A stamp as an array (height, width), float32 of either byte order, NaN where the file says so.

    Raises Rejection: cutout_gzip, cutout_fits, cutout_shape, too_large.
    """
    fits = _gunzip(data, limits.cutout_bytes) if data.startswith(GZIP_MAGIC) else data
    if len(fits) > limits.cutout_bytes:
        raise _too_large(limits.cutout_bytes)
    shape = _direct_shape(bytes(fits[:HEADER_BLOCK]))
    if shape is not None and len(fits) >= HEADER_BLOCK + 4 * shape[0] * shape[1]:
        _check_side(shape, limits)
        return np.frombuffer(fits, ">f4", shape[0] * shape[1], HEADER_BLOCK).reshape(shape)  # type: ignore[return-value]
    return _astropy(bytes(fits), limits)


def _too_large(limit: int) -> Rejection:
    return Rejection(STAGE, "too_large", f"cutout of more than {limit} bytes, unzipped")


def _gunzip(data: bytes, limit: int) -> bytes | bytearray:
    """Unzip. libdeflate wants the size beforehand: gzip's last four bytes tell it, if they are honest."""
    size = int.from_bytes(data[-4:], "little")
    if size <= limit:
        try:
            fits: bytearray = deflate.gzip_decompress(data)
        except (ValueError, deflate.DeflateError):
            pass
        else:
            if len(fits) == size:
                return fits
    return _gunzip_general(data, limit)


def _gunzip_general(data: bytes, limit: int) -> bytes:
    """Unzip step by step: several members, a wrong size at the end, an honest size over the limit."""
    out = b""
    while data:
        engine = zlib.decompressobj(31)
        try:
            out += engine.decompress(data, limit + 1 - len(out))
        except zlib.error as error:
            raise Rejection(STAGE, "cutout_gzip", f"cutout can't be unzipped: {error}") from error
        if len(out) > limit:
            raise _too_large(limit)
        if not engine.eof:
            raise Rejection(
                STAGE, "cutout_gzip", f"cutout's gzip is cut short after {len(out)} unzipped bytes"
            )
        data = engine.unused_data.lstrip(b"\0")  # gzip files may be padded
    return out


@lru_cache(CACHED_HEADERS)
def _direct_shape(header: bytes) -> tuple[int, int] | None:
    """(height, width) if this block is the whole header of a plain 2-D float32 image, else None."""
    cards = [header[i : i + CARD] for i in range(0, HEADER_BLOCK, CARD)]
    keywords = [card[:8].rstrip().decode("latin-1") for card in cards]
    if len(header) < HEADER_BLOCK or "END" not in keywords or tuple(keywords[:5]) != _STRUCTURE:
        return None
    end = keywords.index("END")
    if cards[end].strip() != b"END" or _SCALED.intersection(keywords[:end]) or len(set(keywords[:5])) < 5:
        return None
    if any(keyword in _STRUCTURE for keyword in keywords[5:end]):
        return None
    values = [card[8:].split(b"/")[0].strip() for card in cards[:5]]
    if any(not value.startswith(b"=") for value in values):
        return None
    simple, bitpix, naxis, width, height = (value[1:].strip() for value in values)
    if (simple, bitpix, naxis) != (b"T", b"-32", b"2") or not (width.isdigit() and height.isdigit()):
        return None
    return int(height), int(width)


def _check_side(shape: tuple[int, ...], limits: Limits) -> None:
    if len(shape) != 2 or min(shape) < 1 or max(shape) > limits.cutout_side:
        raise Rejection(
            STAGE,
            "cutout_shape",
            f"cutout is {' x '.join(map(str, shape)) or 'empty'}; "
            f"expected two sides of 1 to {limits.cutout_side} pixels",
        )


def _astropy(fits: bytes, limits: Limits) -> NDArray[np.float32]:
    """The primary image as astropy reads it: any BITPIX, BZERO and BSCALE, long headers, no SIMPLE."""
    from astropy.io import fits as astropy_fits

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # astropy mends many small faults, and says so
        try:
            with astropy_fits.open(io.BytesIO(fits), ignore_missing_simple=True, memmap=False) as hdus:
                primary = hdus[0]
                _check_side(_declared_shape(primary.header), limits)
                image: Any = primary.data
                if image is None:
                    raise Rejection(STAGE, "cutout_fits", "cutout's FITS has no primary image")
                return np.asarray(image, np.float32)
        except (Rejection, MemoryError):
            raise
        except (
            Exception
        ) as error:  # astropy raises many kinds on bad bytes; each means: not a readable FITS image
            detail = f"cutout's FITS can't be read: {type(error).__name__}: {error!s:.200}"
            raise Rejection(STAGE, "cutout_fits", detail) from error


def _declared_shape(header: Any) -> tuple[int, ...]:
    """The image's shape as the header says it, before any memory is taken for it."""
    return tuple(int(header[f"NAXIS{axis}"]) for axis in range(int(header["NAXIS"]), 0, -1))
