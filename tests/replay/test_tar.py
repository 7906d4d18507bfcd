"""Tars made to hurt: they take no memory, and end."""

import gzip
import tarfile
import tracemalloc
from pathlib import Path

import pytest
from reading import candids, header, members, read, reasons
from tiny import write_tar


def pax(*texts: bytes) -> bytes:
    record = b""
    for text in texts:
        size = len(text) + 3
        while len(str(size)) + len(text) + 1 != size:
            size = len(str(size)) + len(text) + 1
        record += str(size).encode() + b" " + text
    return header("pax", len(record), tarfile.XHDTYPE) + record.ljust(-(-len(record) // 512) * 512, b"\0")


def sparse_map(numbers: int) -> bytes:
    content = b"%d\n" % numbers + b"1\n" * 2 * numbers
    padded = content.ljust(-(-len(content) // 512) * 512, b"\0")
    attributes = b"GNU.sparse.major=1\n", b"GNU.sparse.minor=0\n", b"GNU.sparse.realsize=9\n"
    return pax(*attributes) + header("s", len(padded)) + padded


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize(
    "hostile",
    [
        header("pax", 1 << 40, tarfile.XHDTYPE),
        header("pax", 100 << 20, tarfile.XHDTYPE) + bytes(1 << 20),
        pax(b"comment=x\n") * 3000 + header("a.avro", 0),
        pax(b"size=-512\n") + header("a.avro", 512) + bytes(512),
        pax(b"size=99999999999999999999\n") + header("a.avro", 512) + bytes(512),
        header("a.avro", -1024),
        header("a.avro", 1 << 50),
        header("long", 1 << 33, tarfile.GNUTYPE_LONGNAME),
        header("sparse", 1 << 33, tarfile.GNUTYPE_SPARSE),
        sparse_map(1_000_000),
        header("a.avro", 4)[:-1] + b"x",
    ],
)
def test_hostile_tars_take_no_memory_and_are_rejected(
    tmp_path: Path, packets: list[bytes], hostile: bytes, zipped: bool
) -> None:
    good = write_tar(tmp_path / "n.tar", members(packets)[:1]).read_bytes()
    at = 512 + -(-len(packets[0]) // 512) * 512
    content = good[:at] + hostile + good
    (tmp_path / "n.tar").write_bytes(gzip.compress(content) if zipped else content)
    tracemalloc.start()
    items = read(tmp_path / "n.tar")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 30 << 20
    assert len(candids(items)) in (1, 2)
    assert set(reasons(items)) <= {"tar", "too_large", "empty"}
    assert reasons(items)


def test_attributes_of_a_tar_do_not_gather(tmp_path: Path) -> None:
    record = b"60000 " + b"k%06d=" + b"v" * 59985 + b"\n"
    with (tmp_path / "n.tar").open("wb") as file:
        for number in range(300):
            text = record % number
            file.write(header("g", len(text), tarfile.XGLTYPE) + text.ljust(-(-len(text) // 512) * 512, b"\0"))
            file.write(header(f"{number}", 0))
        file.write(bytes(1024))
    tracemalloc.start()
    items = read(tmp_path / "n.tar")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert reasons(items) == ["empty"] * 300
    assert peak < 5 << 20
