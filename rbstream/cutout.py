"""Cutouts: gzipped or plain FITS primary images to arrays.

Astropy is the judge. What every stamp of ZTF is, one block of header and float32 pixels, is read without it.
"""

import io
import re
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
_SCALED = frozenset({"BSCALE", "BZERO", "BLANK", "XTENSION", "GROUPS", "PCOUNT", "GCOUNT", "HIERARCH"})
_PLAIN_KEYWORD = re.compile("[A-Z0-9_-]*")
# A file of many empty members is read over and over again, once for each.
MAX_GZIP_MEMBERS = 16


def decode_cutout(data: bytes, limits: Limits) -> NDArray[np.float32]:
    """A stamp as an array (height, width), NaN where the file says so.

    float32 of either byte order, and perhaps read-only: whoever copies it into a batch turns the bytes around
    on the way, and needs no second copy. Raises Rejection: cutout_gzip, cutout_fits, cutout_shape, too_large.
    """
    zipped = data.startswith(GZIP_MAGIC)
    if not zipped and len(data) > limits.cutout_bytes:
        raise _too_large(limits.cutout_bytes)
    fits = _gunzip(data, limits.cutout_bytes) if zipped else data
    image = _direct(fits, limits) if fits is not None else None
    if image is not None:
        return image
    return _astropy(_gunzip_general(data, limits.cutout_bytes) if zipped else data, limits)


def _direct(fits: bytes | bytearray, limits: Limits) -> NDArray[np.float32] | None:
    """The image behind a header block of the plainest kind; None where it is astropy's to read."""
    shape = _direct_shape(bytes(fits[:HEADER_BLOCK]))
    if shape is None or len(fits) < HEADER_BLOCK + 4 * shape[0] * shape[1]:
        return None
    _check_side(shape, limits)
    image: NDArray[np.float32] = np.frombuffer(fits, ">f4", shape[0] * shape[1], HEADER_BLOCK)
    return image.reshape(shape)


def _too_large(limit: int) -> Rejection:
    return Rejection(STAGE, "too_large", f"cutout of more than {limit} bytes, unzipped")


def _gunzip(data: bytes, limit: int) -> bytearray | None:
    """Unzip one member, the only one of a stamp; None where that is not all, or not right.

    libdeflate wants the size beforehand: gzip's last four bytes tell it, if they are honest.
    """
    if int.from_bytes(data[-4:], "little") > limit:
        return None
    try:
        fits: bytearray = deflate.gzip_decompress(data)
    except (ValueError, deflate.DeflateError):
        return None
    return fits


def _gunzip_general(data: bytes, limit: int) -> bytes:
    """Unzip step by step: several members, padding, a size that is wrong or over the limit."""
    out = b""
    for _ in range(MAX_GZIP_MEMBERS):
        engine = zlib.decompressobj(31)
        try:
            out += engine.decompress(data, limit + 1 - len(out))
        except zlib.error as error:
            raise Rejection(STAGE, "cutout_gzip", f"cutout can't be unzipped: {error}") from error
        if len(out) > limit:
            raise _too_large(limit)
        if not engine.eof:
            raise Rejection(STAGE, "cutout_gzip", f"cutout's gzip is cut short after {len(out)} unzipped bytes")
        data = engine.unused_data.lstrip(b"\0")  # gzip files may be padded
        if not data:
            return out
    raise Rejection(STAGE, "cutout_gzip", f"cutout's gzip has more than {MAX_GZIP_MEMBERS} members")


@lru_cache(CACHED_HEADERS)
def _direct_shape(header: bytes) -> tuple[int, int] | None:
    """(height, width) if this block is the whole header of a plain 2-D float32 image, else None."""
    if len(header) < HEADER_BLOCK or not header.isascii():
        return None
    cards = [header[i : i + CARD].decode() for i in range(0, HEADER_BLOCK, CARD)]
    keywords = [card[:8].rstrip(" ") for card in cards]
    if "END" not in keywords or tuple(keywords[:5]) != _STRUCTURE:
        return None
    end = keywords.index("END")
    others = keywords[5:end]
    if cards[end].rstrip(" ") != "END" or not _SCALED.union(_STRUCTURE).isdisjoint(others):
        return None
    if not all(_PLAIN_KEYWORD.fullmatch(keyword) for keyword in others):
        return None
    # EXTEND says nothing about the image, but astropy refuses what it can't parse there.
    needed = [*cards[:5], *(card for card in cards[5:end] if card.startswith("EXTEND  "))]
    if any(card[8:10] != "= " for card in needed):
        return None
    simple, bitpix, naxis, width, height, *extend = (card[10:].split("/")[0].strip(" ") for card in needed)
    if not set(extend) <= {"T", "F"}:
        return None
    if (simple, bitpix, naxis) != ("T", "-32", "2") or not (width.isdigit() and height.isdigit()):
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
                shape = _declared_shape(primary.header)
                _check_side(shape, limits)
                image: NDArray[np.float32] = np.asarray(primary.data, np.float32)
                if image.shape != shape:  # bytes as they are, where SIMPLE is F
                    raise Rejection(STAGE, "cutout_fits", "cutout's FITS has no primary image")
                return image
        except (Rejection, MemoryError):
            raise
        except Exception as error:  # astropy raises many kinds on bad bytes: all mean that this is no image
            detail = f"cutout's FITS can't be read: {type(error).__name__}: {error!s:.200}"
            raise Rejection(STAGE, "cutout_fits", detail) from error


def _declared_shape(header: Any) -> tuple[int, ...]:
    """The image's shape as the header says it, before any memory is taken for it."""
    return tuple(int(header[f"NAXIS{axis}"]) for axis in range(int(header["NAXIS"]), 0, -1))
