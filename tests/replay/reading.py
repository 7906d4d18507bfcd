"""What is found in files, for tests."""

import tarfile
from pathlib import Path

from rbstream.packet.alert import Alert, Rejected
from rbstream.packet.reader import PacketReader
from rbstream.packet.survey import ZTF
from rbstream.replay.sources import Inputs, load
from rbstream.settings import Limits

CHANNELS = ("science", "template", "difference")


def read(*names: Path | str, limits: Limits | None = None) -> list[Alert | Rejected]:
    """Every record in some files."""
    limits = limits or Limits()
    reader = PacketReader(ZTF, CHANNELS, frozenset(), limits)
    found: list[Alert | Rejected] = []
    for source in Inputs([str(name) for name in names], limits):
        loaded = load(source, limits)
        found += [loaded] if isinstance(loaded, Rejected) else reader.read(loaded)
    return found


def candids(items: list[Alert | Rejected]) -> list[int]:
    return [item.candid for item in items if isinstance(item, Alert)]


def reasons(items: list[Alert | Rejected]) -> list[str]:
    return [item.rejection.reason for item in items if isinstance(item, Rejected)]


def members(packets: list[bytes]) -> list[tuple[str, bytes]]:
    return [(f"night/{number:03}.avro", packet) for number, packet in enumerate(packets)]


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE, **more: object) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    for key, value in more.items():
        setattr(info, key, value)
    return info.tobuf(tarfile.GNU_FORMAT)
