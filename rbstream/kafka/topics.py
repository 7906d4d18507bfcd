"""What a cluster says of itself and its topics, asked for before anything is read or written."""

import logging
import time
from collections.abc import Iterable, Mapping
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import ConfigResource
from confluent_kafka.admin._resource import ResourceType

from rbstream.kafka.clients import Complaints, admin_config, with_voice
from rbstream.kafka.faults import KafkaFailure

logger = logging.getLogger(__name__)

# A broker that is there answers in milliseconds, one that is just starting or far away in seconds.
ANSWER_SECONDS = 15.0
# An annotated packet has three stamps of 13 to 15 kB, which no codec makes smaller, and a schema of 26 kB.
LEAST_MESSAGE_BYTES = 64 << 10
# Kafka's default for max.message.bytes, where the right to ask is lacking.
DEFAULT_MESSAGE_BYTES = 1_048_588
_SASL_HINT = "see sasl.* and security.protocol in [source.properties] and [sink.properties]"


class Cluster:
    """A cluster, as an admin client sees it. side: `source` or `sink`, for messages.

    Raises KafkaFailure where no broker answers, or it does not let us in.
    """

    def __init__(self, side: str, config: Mapping[str, Any]) -> None:
        self._side = side
        self._servers = config["bootstrap.servers"]
        complaints = Complaints(f"{side} admin")
        self._admin = AdminClient(with_voice(admin_config(config), complaints))
        metadata = self._ask_metadata(complaints)
        self.id: str | None = metadata.cluster_id
        self.topics: dict[str, int] = {
            name: len(topic.partitions) for name, topic in metadata.topics.items() if topic.error is None
        }

    def _ask_metadata(self, complaints: Complaints) -> Any:
        deadline = time.monotonic() + ANSWER_SECONDS
        while True:
            try:
                return self._admin.list_topics(timeout=1.0)
            except KafkaException as error:
                self._admin.poll(0)  # serves the complaints
                said = complaints.last or error.args[0]
                if said.code() in _NOT_LET_IN:
                    raise KafkaFailure(
                        f"{self._side} {self._servers} does not let us in: {said.str()}; {_SASL_HINT}"
                    ) from error
                if time.monotonic() > deadline:
                    raise KafkaFailure(
                        f"{self._side}: no broker answers at {self._servers} within {ANSWER_SECONDS:g} s: "
                        f"{said.str()}; is {self._side}.bootstrap_servers right, and Kafka up?"
                    ) from error

    def require(self, topics: Iterable[str]) -> None:
        """Raises KafkaFailure for topics that are not there: rbstream makes none, whose settings are its owner's."""
        missing = [name for name in topics if name not in self.topics]
        if missing:
            raise KafkaFailure(
                f"{self._side} {self._servers} has no topic {', '.join(missing)} (or we may not see it); create it: "
                f"kafka-topics.sh --bootstrap-server {self._servers} --create --topic {missing[0]} --partitions N"
            )

    def message_limits(self, topics: Iterable[str]) -> dict[str, int]:
        """The largest message that each topic takes [bytes]; Kafka's default where we may not ask.

        Raises KafkaFailure where one is too small for any packet.
        """
        limits = {name: self._message_limit(name) for name in topics}
        for name, limit in limits.items():
            if limit < LEAST_MESSAGE_BYTES:
                raise KafkaFailure(
                    f"{self._side} topic {name} takes messages of {limit} bytes at most, an alert has some 80,000; "
                    f"raise max.message.bytes: kafka-configs.sh --bootstrap-server {self._servers} --alter "
                    f"--entity-type topics --entity-name {name} --add-config max.message.bytes={DEFAULT_MESSAGE_BYTES}"
                )
        return limits

    def _message_limit(self, topic: str) -> int:
        resource = ConfigResource(ResourceType.TOPIC, topic)
        try:
            (answer,) = self._admin.describe_configs([resource], request_timeout=ANSWER_SECONDS).values()
            return int(answer.result()["max.message.bytes"].value)
        except (KafkaException, KeyError) as error:
            logger.warning("max.message.bytes can't be read; Kafka's default is assumed",
                           extra={"topic": topic, "error": str(error)})  # fmt: skip
            return DEFAULT_MESSAGE_BYTES


_NOT_LET_IN = frozenset(
    {KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED, KafkaError.UNSUPPORTED_SASL_MECHANISM}
)
