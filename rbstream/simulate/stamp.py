"""A stamp as ZTF writes it: a gzipped FITS image with one header block."""

from __future__ import annotations

import deflate
import numpy as np

_BLOCK = 2880  # bytes of a FITS block, which headers and data are padded to
_LEVEL = 1  # noise hardly compresses: 13.2 kB at level 1 and at 6, which takes twice as long


def stamp_data(image: np.ndarray) -> bytes:
    """The gzipped FITS file of one image in DN, as big-endian float32; the same bytes for the same image.

    63 x 63 pixels are 20,160 bytes unzipped: a header block of 2,880 and 6 blocks of data.
    """
    data = image.astype(">f4").tobytes()
    padding = bytes(-len(data) % _BLOCK)
    return bytes(deflate.gzip_compress(_header(*image.shape) + data + padding, _LEVEL))


def _header(rows: int, columns: int) -> bytes:
    cards = (
        f"SIMPLE  = {'T':>20}",
        f"BITPIX  = {-32:>20}",
        f"NAXIS   = {2:>20}",
        f"NAXIS1  = {columns:>20}",
        f"NAXIS2  = {rows:>20}",
        "BUNIT   = 'DN      '",
        "END",
    )
    return "".join(card.ljust(80) for card in cards).ljust(_BLOCK).encode("ascii")
