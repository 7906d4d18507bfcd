"""Every setting, once: type, unit, default, one-line description. Where the values come from: rbstream/config.py."""

import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, WithJsonSchema
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from rbstream.masking import masked
from rbstream.units import Duration, Size

MIB = 1 << 20
PREFIX = "RBSTREAM_"
Sha256 = Annotated[str, Field(pattern="^[0-9a-fA-F]{64}$")]
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Threshold = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


def _listed(value: object) -> object:
    """A list from one string: JSON, or names between commas."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        try:
            return json.loads(value)
        except ValueError as error:
            raise ValueError(f"starts like a JSON list, and is none: {error}") from error
    # The comma of {1,3} stays.
    return [part.strip() for part in re.split(r",(?![^{}]*\})", value) if part.strip()]


def _plain(value: object) -> object:
    """librdkafka's text for what TOML writes without quotes."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, (int, float)) else value


Names = Annotated[
    tuple[Text, ...],
    BeforeValidator(_listed),
    WithJsonSchema({"anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "string"}]}),
]
# Names between dots may be written as tables in tables.
Properties = Annotated[
    dict[str, Annotated[str, BeforeValidator(_plain)]],
    WithJsonSchema({"type": "object", "additionalProperties": {"type": ["string", "number", "boolean", "object"]}}),
]


class _Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        return ((name, masked(str(name), value)) for name, value in super().__repr_args__())


class Source(_Group):
    """Where alerts come from."""

    bootstrap_servers: Text | None = Field(default=None, description="Kafka to read from: host:port[,host:port...]")
    group_id: Text = Field(default="rbstream", description="Consumer group; workers of one group share the alerts")
    topics: Names = Field(default=(), description="Topics to read: names, or regular expressions after ^")
    instance_id: Text | None = Field(
        default=None, description="Name of this worker within its group, for static membership; dynamic by default"
    )
    group_protocol: Literal["classic", "consumer"] = Field(
        default="classic", description="Kafka's group protocol: classic, or consumer (KIP-848)"
    )
    schema_registry: Text | None = Field(
        default=None, description="URL of the schema registry for Confluent-framed packets"
    )
    schemas: Path | None = Field(
        default=None, description="Folder of schemas <id>.avsc for Confluent-framed packets, in place of a registry"
    )
    report_progress: bool = Field(
        default=True,
        description="Tell the group at the source of progress too, where the sink's Kafka keeps it",
    )
    # Some 800 packets of 76 kB: seconds of work, so that the network's pauses don't show.
    prefetch: Size = Field(default=64 * MIB, ge=MIB, le=(1 << 31) - 1024, description="Packets fetched ahead, at most")
    properties: Properties = Field(default={}, description="Any property of librdkafka for the consumer, by its name")


class Sink(_Group):
    """Where results go."""

    bootstrap_servers: Text | None = Field(
        default=None, description="Kafka to write to: host:port[,host:port...]; the source's by default"
    )
    topic: Text | None = Field(default=None, description="Topic of the annotated alerts that pass")
    dead_letters: Text | None = Field(default=None, description="Topic of the packets that can't be scored")
    scores: Text | None = Field(default=None, description="Topic of a small record for every alert; none by default")
    transactional_id: Text | None = Field(
        default=None, description="Name of this worker's transactions: one a process, the same after a restart"
    )
    progress_prefix: Text | None = Field(
        default=None,
        description="Prefix of the progress topics of another Kafka's; <source.group_id>.progress by default",
    )
    # The longest that transaction.max.timeout.ms allows on a broker left as installed.
    max_outage: Duration = Field(
        default=900.0, ge=1, description="How long Kafka may be away before the worker gives up"
    )
    properties: Properties = Field(default={}, description="Any property of librdkafka for the producer, by its name")


class Route(_Group):
    """A further topic with a filter of its own."""

    topic: Text = Field(description="Topic of the alerts that take this route")
    threshold: Threshold | None = Field(
        default=None, description="Score from which an alert takes this route; filter.threshold's by default"
    )
    where: str | None = Field(default=None, description="Condition on candidate fields that must hold too")


class Limits(_Group):
    """Sizes that are checked before memory is taken."""

    # A packet is 76 kB; the largest container blocks seen in the wild hold some dozens of them.
    packet_bytes: Size = Field(
        default=16 * MIB,
        ge=1024,
        description="Largest packet or container block, stored or decompressed",
    )
    # fastavro takes some fifty times a record's bytes to decode it: the general path then stays under 128 MiB.
    record_bytes: Size = Field(default=2 * MIB, ge=1024, description="Largest record")
    # Full packets reach packet_bytes at some 200. Each record that is rejected keeps a copy of the schema: more of
    # them could make a gigabyte of a block.
    block_records: int = Field(default=1024, ge=1, description="Most records in a container block")
    # ZTF's schema has 26 kB, the largest of other surveys 60 kB.
    schema_bytes: Size = Field(default=1 * MIB, ge=1024, description="Largest Avro schema")
    # 63 x 63 float32 pixels and a header are 20 kB; this leaves room for any survey's 1,000 x 1,000.
    cutout_bytes: Size = Field(default=4 * MIB, ge=2880, description="Largest cutout, unzipped")
    cutout_side: int = Field(default=1024, ge=1, description="Longest side of a cutout [pixels]")


class Model(_Group):
    """Which network scores, and where."""

    bundle: Path | None = Field(default=None, description="Model bundle; the one that rbstream ships by default")
    sha256: Sha256 | None = Field(
        default=None, description="Expected SHA-256 of the bundle's file, checked before loading"
    )
    device: str = Field(
        default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="Device: auto, cpu or cuda[:N]"
    )
    precision: Literal["float32", "bfloat16"] = Field(
        default="float32", description="Precision of the network; normalisation is always float32"
    )


class Filter(_Group):
    """What passes."""

    threshold: Threshold | None = Field(
        default=None, description="Score from which an alert passes; the bundle's own by default"
    )
    where: str | None = Field(
        default=None, description='Condition on candidate fields that must hold too, e.g. "magpsf < 19.5"'
    )


class Batch(_Group):
    """Micro-batches."""

    # Measured best on one core: larger batches fall out of the cache, smaller ones pay the call.
    max_alerts: int = Field(default=32, ge=1, le=4096, description="Alerts scored at once")
    max_bytes: Size = Field(default=32 * MIB, ge=1024, description="Packets that wait for a batch to fill, at most")
    # A tenth of what a night's broker adds anyway; at 100 alerts/s batches of ten.
    max_delay: Duration = Field(default=0.1, le=60, description="Longest wait for a batch to fill")
    # Enough to keep decoding and scoring busy while a transaction commits.
    queue: int = Field(default=8, ge=1, le=1024, description="Batches on their way through decoding and scoring")


class Rejects(_Group):
    """When bad input is too much of the input."""

    max_ratio: float = Field(
        default=0.2, ge=0, le=1, description="Share of rejected alerts from which a run stops with status 3"
    )
    # A bit each, in the 4096 characters of a committed offset's metadata.
    window: int = Field(default=1000, ge=20, le=16_000, description="Alerts of a partition that the share is taken of")
    in_a_row: int = Field(default=100, ge=1, description="Rejected alerts in a row at which a worker stops, status 3")


class Replay(_Group):
    """Files in, files out."""

    jobs: int = Field(
        default_factory=lambda: len(os.sched_getaffinity(0)),
        ge=1,
        le=1024,
        description="Processes that decode and score; as many as there are cores by default",
    )


class Shutdown(_Group):
    """How a worker stops."""

    # Kubernetes kills a pod 30 s after SIGTERM.
    drain: Duration = Field(
        default=25.0, ge=1, description="Time to finish and commit what is under way, on SIGTERM and on a rebalance"
    )


class Metrics(_Group):
    """The endpoint of /metrics, /livez and /readyz."""

    host: Text = Field(default="0.0.0.0", description="Address to listen on")
    port: int = Field(default=9108, ge=0, le=65535, description="Port to listen on; 0 is any free one")


class Health(_Group):
    """When a worker counts as stuck."""

    # The slowest healthy turn is a commit through a broker's election, some ten seconds.
    stuck_after: Duration = Field(default=120.0, ge=1, description="Time without progress after which /livez fails")


class Log(_Group):
    """Logs on standard error."""

    format: Literal["auto", "json", "text"] = Field(
        default="auto", description="One JSON object a line, or text; auto is text on a terminal, else JSON"
    )
    level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="Least level to be logged")


class Settings(BaseSettings):
    """The whole tree."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter="__", enable_decoding=False, frozen=True, extra="forbid"
    )

    delivery: Literal["exactly-once", "at-least-once"] = Field(
        default="exactly-once", description="What is promised of results: exactly-once, or at-least-once"
    )
    source: Source = Source()
    sink: Sink = Sink()
    routes: dict[Annotated[str, Field(pattern="^[A-Za-z0-9_-]+$")], Route] = Field(
        default={}, description="Further topics by name, each with a filter of its own"
    )
    model: Model = Model()
    filter: Filter = Filter()
    batch: Batch = Batch()
    rejects: Rejects = Rejects()
    limits: Limits = Limits()
    shutdown: Shutdown = Shutdown()
    metrics: Metrics = Metrics()
    health: Health = Health()
    log: Log = Log()
    replay: Replay = Field(default_factory=Replay)

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource, *_: Any, **__: Any
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what is given: rbstream/config.py reads the sources, and keeps where each value came from."""
        return (init_settings,)
