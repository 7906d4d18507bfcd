"""Paths to pieces: whatever the files look like, all records are found once, in order, in bounded memory."""

import gzip
import io
import random
import tarfile
import tracemalloc
from pathlib import Path

import pytest
from reading import candids, header, members, read, reasons
from tiny import write_tar

from rbstream.errors import UsageError
from rbstream.packet.alert import Origin, Packet, Rejected
from rbstream.packet.container import MAGIC, encode_block, encode_header, read_header
from rbstream.replay import sources
from rbstream.replay.sources import Inputs, Piece, find_inputs, load
from rbstream.settings import Limits


@pytest.fixture(scope="session")
def expected(night: Path) -> list[int]:
    return candids(read(night))


@pytest.fixture(scope="session")
def blocks(packets: list[bytes]) -> tuple[bytes, list[bytes]]:
    """A header, and the night's records as blocks of one each."""
    header = read_header(packets[0], Limits())
    return packets[0][: header.length], [packet[header.length :] for packet in packets]


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the night a large container, to be cut in pieces."""
    monkeypatch.setattr(sources, "PIECE_BYTES", 1 << 18)


SMALL = Limits(schema_bytes=1 << 17)


@pytest.mark.parametrize(("name", "mode"), [("n.tar", "w"), ("n.tar.gz", "w:gz"), ("n.tgz", "w:gz")])
def test_tars_give_their_members_in_order(
    tmp_path: Path, packets: list[bytes], expected: list[int], name: str, mode: str
) -> None:
    items = read(write_tar(tmp_path / name, members(packets), mode))
    assert candids(items) == expected
    assert [item.origin.member for item in items] == [member for member, _ in members(packets)]


@pytest.mark.parametrize("format_", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_tars_of_every_format_with_long_names(
    tmp_path: Path, packets: list[bytes], expected: list[int], format_: int
) -> None:
    folder = "/".join(["a" * 60] * (2 if format_ == tarfile.USTAR_FORMAT else 5))
    with tarfile.open(tmp_path / "n.tar", "w", format=format_) as tar:
        for number, packet in enumerate(packets[:3]):
            header = tarfile.TarInfo(f"{folder}/{number}.avro")
            header.size = len(packet)
            tar.addfile(header, io.BytesIO(packet))
            tar.addfile(tarfile.TarInfo(f"folder{number}"))
            link = tarfile.TarInfo("link")
            link.type, link.linkname = tarfile.SYMTYPE, "elsewhere"
            tar.addfile(link)
    items = read(tmp_path / "n.tar")
    assert candids(items) == expected[:3]
    assert items[0].origin.member == f"{folder}/0.avro"


def test_a_large_container_is_cut_into_pieces_that_lose_nothing(
    night: Path, expected: list[int], large: None, tmp_path: Path
) -> None:
    assert sum(1 for _ in Inputs([str(night)], SMALL)) > 5
    items = read(night, limits=SMALL)
    assert candids(items) == expected
    assert [item.origin.record for item in items] == list(range(60))
    zipped = tmp_path / "night.avro.gz"
    zipped.write_bytes(gzip.compress(night.read_bytes(), 1))
    assert candids(read(zipped, limits=SMALL)) == expected


@pytest.mark.parametrize("cut", [False, True])
def test_what_stands_before_a_bad_sync_marker_stands(
    tmp_path: Path,
    blocks: tuple[bytes, list[bytes]],
    expected: list[int],
    cut: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    head, records = blocks
    broken = [*records[:30], records[30][:-1] + b"?", *records[31:]]
    path = tmp_path / "broken.avro"
    path.write_bytes(head + b"".join(broken))
    if cut:
        monkeypatch.setattr(sources, "PIECE_BYTES", 1 << 18)
    items = read(path, limits=SMALL if cut else Limits())
    assert candids(items) == expected[:30]
    assert reasons(items) == ["sync"]
    last = items[-1]
    assert isinstance(last, Rejected)
    offset = len(head) + sum(map(len, records[:30]))
    assert last.origin == Origin(str(path), None, 30, offset)
    assert last.packet == head + b"".join(broken[30:])


def test_a_container_cut_short_anywhere_gives_what_is_whole(
    tmp_path: Path, blocks: tuple[bytes, list[bytes]], expected: list[int], large: None
) -> None:
    head, records = blocks
    whole, path = head + b"".join(records), tmp_path / "cut.avro"
    ends = [len(head)]
    for record in records:
        ends.append(ends[-1] + len(record))
    chance = random.Random(2)
    for size in [*(chance.randrange(len(whole)) for _ in range(40)), ends[20], ends[20] + 1, ends[21] - 1]:
        path.write_bytes(whole[:size])
        items = read(path, limits=SMALL)
        complete = sum(end <= size for end in ends[1:])
        assert candids(items) == expected[:complete]
        assert len(items) == complete + (size not in ends)


@pytest.mark.parametrize("zipped", [False, True])
def test_a_tar_cut_short_anywhere_gives_what_is_whole_and_one_rejection(
    tmp_path: Path, packets: list[bytes], expected: list[int], zipped: bool
) -> None:
    path = write_tar(tmp_path / "n.tar", members(packets)[:20])
    with tarfile.open(path) as tar:
        ends = [member.offset_data + member.size for member in tar]
    whole, chance = path.read_bytes(), random.Random(3)
    filled = [-(-end // 512) * 512 for end in ends]  # where the next header begins
    beside = [ends[4] - 1, ends[4], ends[4] + 1, filled[4], filled[4] + 512, ends[-1], filled[-1]]
    for size in [*(chance.randrange(600, ends[-1]) for _ in range(25)), *beside]:
        # Stored, so that as much comes out as goes in.
        path.write_bytes(gzip.compress(whole, 0)[:size] if zipped else whole[:size])
        items = read(path)
        complete = len(candids(items))
        assert candids(items) == expected[:complete]
        assert reasons(items) == ["tar"]
        read_whole = sum(end <= size for end in ends)
        assert read_whole - zipped <= complete <= read_whole


def test_damage_in_a_gzip_spares_what_stands_before_it(
    tmp_path: Path, packets: list[bytes], expected: list[int]
) -> None:
    path = write_tar(tmp_path / "n.tgz", members(packets), "w:gz")
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2 : len(damaged) // 2 + 50] = bytes(50)
    path.write_bytes(damaged)
    items = read(path)
    assert candids(items)[:20] == expected[:20]
    assert reasons(items)


def test_a_wrong_byte_anywhere_in_a_zipped_tar_is_noticed_though_all_of_it_unzips(
    tmp_path: Path, packets: list[bytes]
) -> None:
    path = write_tar(tmp_path / "n.tar", members(packets)[:20])
    # Stored, as what is zipped twice mostly is: nothing but the checksum behind the tar's end tells of it.
    whole, chance = gzip.compress(path.read_bytes(), 0), random.Random(4)
    for at in (chance.randrange(100, len(whole) - 8) for _ in range(25)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert reasons(read(path))


def test_a_member_that_is_too_large_does_not_hide_damage_before_it(tmp_path: Path, packets: list[bytes]) -> None:
    path = write_tar(tmp_path / "n.tar", [*members(packets)[:2], ("large", bytes(2 << 20))])
    whole = bytearray(gzip.compress(path.read_bytes(), 0))
    whole[30_000] ^= 1  # in the first member's stamps
    path.write_bytes(whole)
    assert reasons(read(path, limits=Limits(packet_bytes=1 << 20))) == ["too_large", "gzip"]


NO_PACKETS = {
    "nothing": (b"", "empty"),
    "a byte": (b"x", "not_avro"),
    "gzip's magic": (b"\x1f\x8b", "gzip"),
    "gzip's magic and garbage": (b"\x1f\x8bgarbage", "gzip"),
    "avro's magic": (MAGIC, "truncated"),
    "gzip of nothing, cut short": (gzip.compress(b"")[:-1], "gzip"),
    "gzip of a byte": (gzip.compress(b"x"), "not_avro"),
    "gzip of nothing": (gzip.compress(b""), "empty"),
    "gzip of gzip": (gzip.compress(gzip.compress(MAGIC)), "not_avro"),
    "noise": (bytes(range(1, 256)) * 20, "not_avro"),
}


# By name: with the bytes in it, a test's name would change with gzip's time stamp.
@pytest.mark.parametrize(("content", "reason"), NO_PACKETS.values(), ids=NO_PACKETS)
def test_what_is_no_packet_is_one_rejection(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "x.avro").write_bytes(content)
    assert reason in reasons(read(tmp_path / "x.avro"))
    assert candids(read(tmp_path / "x.avro")) == []


def test_a_tar_without_members_and_a_container_without_records_hold_nothing(
    tmp_path: Path, blocks: tuple[bytes, list[bytes]]
) -> None:
    (tmp_path / "head.avro").write_bytes(blocks[0])
    for mode in ("w", "w:gz"):
        assert read(write_tar(tmp_path / "empty.tar", [], mode), tmp_path / "head.avro") == []


@pytest.mark.parametrize("name", ["bomb.avro", "bomb.tar.gz"])
def test_a_gzip_bomb_is_one_rejection_in_bounded_memory(tmp_path: Path, name: str) -> None:
    size = 200 << 20
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=1) as file:
        file.write(header("a.avro", size) if "tar" in name else b"bomb")
        for _ in range(size >> 20):
            file.write(bytes(1 << 20))
        file.write(bytes(1024))
    (tmp_path / name).write_bytes(packed.getvalue())
    tracemalloc.start()
    items = read(tmp_path / name, limits=Limits(packet_bytes=1 << 20))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert reasons(items) == ["too_large" if "tar" in name else "not_avro"]
    assert peak < 20 << 20


def test_a_member_over_the_limit_is_rejected_and_the_next_one_read(
    tmp_path: Path, packets: list[bytes], expected: list[int]
) -> None:
    limits = Limits(packet_bytes=1 << 17)
    path = write_tar(tmp_path / "n.tar", [("big", bytes(1 << 18)), ("a", packets[0])])
    for mode in ("w", "w:gz"):
        path = write_tar(tmp_path / "n.tar", [("big", bytes(1 << 18)), ("a", packets[0])], mode)
        items = read(path, limits=limits)
        assert reasons(items) == ["too_large"]
        assert candids(items) == expected[:1]


def test_a_block_over_the_limit_ends_a_large_container(
    tmp_path: Path, blocks: tuple[bytes, list[bytes]], expected: list[int], large: None
) -> None:
    head, records = blocks
    sync = head[-16:]
    big = encode_block([bytes(1 << 19)], sync)
    (tmp_path / "x.avro").write_bytes(head + b"".join(records[:20]) + big + b"".join(records[20:]))
    items = read(tmp_path / "x.avro", limits=SMALL.model_copy(update={"packet_bytes": 1 << 18}))
    assert candids(items) == expected[:20]
    assert reasons(items) == ["too_large"]


def test_a_schema_over_the_limit_is_too_large(tmp_path: Path) -> None:
    (tmp_path / "x.avro").write_bytes(encode_header(b" " * (2 << 20), bytes(16)))
    assert reasons(read(tmp_path / "x.avro")) == ["too_large"]


def test_folders_and_globs_give_nights_sorted_without_hidden_files(tmp_path: Path) -> None:
    for name in (
        "b.avro",
        "a.tar",
        "c.tgz",
        "d.tar.gz",
        "sub/e.AVRO",
        ".hidden.avro",
        ".part/x.avro",
        "note.txt",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    shown = [str(Path(name).relative_to(tmp_path)) for name in find_inputs([str(tmp_path)])]
    assert shown == ["a.tar", "b.avro", "c.tgz", "d.tar.gz", "sub/e.AVRO"]
    assert find_inputs([f"{tmp_path}/*.t[ag]*", "-"]) == [
        *(str(tmp_path / x) for x in ("a.tar", "c.tgz", "d.tar.gz")),
        "-",
    ]
    assert [Path(name).name for name in find_inputs([f"{tmp_path}/**/*.AVRO"])] == ["e.AVRO"]


def test_a_name_with_the_letters_of_a_glob_is_a_name_first(tmp_path: Path) -> None:
    (tmp_path / "night[1].avro").write_bytes(b"x")
    assert find_inputs([str(tmp_path / "night[1].avro")]) == [str(tmp_path / "night[1].avro")]


@pytest.mark.parametrize("path", ["absent.avro", "*.avro", "empty"])
def test_a_path_to_nothing_is_wrong_usage(tmp_path: Path, path: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"no such file|no file in it"):
        find_inputs([str(tmp_path / path)])


def test_a_file_that_is_gone_or_cannot_be_read_is_one_rejection(tmp_path: Path, night: Path) -> None:
    (tmp_path / "dangling.avro").symlink_to(tmp_path / "absent")
    items = read(tmp_path / "gone.avro", *find_inputs([str(tmp_path / "dangling.avro")]), tmp_path, night)
    assert reasons(items) == ["unreadable"] * 3
    assert len(candids(items)) == 60


def test_a_piece_whose_file_is_gone_is_one_rejection(tmp_path: Path) -> None:
    piece = Piece(Origin("gone.tar", "a"), path=str(tmp_path / "gone.tar"), length=10)
    loaded = load(piece, Limits())
    assert isinstance(loaded, Rejected)
    assert loaded.rejection.reason == "unreadable"
    assert not isinstance(loaded, Packet)
