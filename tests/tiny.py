"""What tests of the model, the pipeline and the commands share: a network that is quick, and the command itself."""

import os
import subprocess
import sys
import tarfile
from io import BytesIO
from pathlib import Path
from typing import Any

import fastavro
import torch
from torch import nn

from rbstream.model.bundle import write_bundle
from rbstream.model.golden import golden_triplets
from rbstream.model.manifest import Manifest
from rbstream.model.network import L2Image, RealBogus

RBSTREAM = [sys.executable, "-m", "rbstream"]


def tiny_network(gain: float = 3.0) -> RealBogus:
    """A classifier of random, always the same weights. gain: how far its scores are spread."""
    torch.manual_seed(5)
    network = nn.Sequential(nn.AvgPool2d(7), nn.Flatten(), nn.Linear(243, 1))
    network[2].weight.data *= gain * 30
    return RealBogus(L2Image(), network)


def tiny_manifest(**changes: Any) -> Manifest:
    values = {"name": "tiny", "version": "tiny1", "normalization": "l2-image", "threshold": 0.5}
    return Manifest(**(values | changes))


def write_tiny(path: Path, network: RealBogus | None = None, **changes: Any) -> Path:
    """A whole bundle at a path."""
    manifest = tiny_manifest(**changes)
    write_bundle(path, network or tiny_network(), manifest, golden_triplets(manifest))
    return path


def rbstream(*arguments: object, **options: Any) -> "subprocess.CompletedProcess[str]":
    """The command, run to its end."""
    options = {"env": environment(), "capture_output": True, "text": True, "timeout": 120} | options
    return subprocess.run([*RBSTREAM, *map(str, arguments)], **options)


def environment(**more: str) -> dict[str, str]:
    """This process's, without the settings that may be in it."""
    return {name: value for name, value in os.environ.items() if not name.startswith("RBSTREAM_")} | more


def records(path: Path) -> list[dict[str, Any]]:
    """What fastavro reads in a container."""
    with path.open("rb") as file:
        return list(fastavro.reader(file))  # type: ignore[arg-type]


def split(night: Path) -> list[bytes]:
    """The packets of a night, each a container of its own with codec null."""
    with night.open("rb") as file:
        reader = fastavro.reader(file)
        schema = reader.writer_schema
        packets = []
        for record in reader:
            packet = BytesIO()
            fastavro.writer(packet, schema, [record], sync_marker=bytes(16))
            packets.append(packet.getvalue())
    return packets


def write_tar(path: Path, members: list[tuple[str, bytes]], mode: str = "w") -> Path:
    """A tar of named contents."""
    with tarfile.open(path, mode) as tar:
        for name, content in members:
            header = tarfile.TarInfo(name)
            header.size = len(content)
            tar.addfile(header, BytesIO(content))
    return path
