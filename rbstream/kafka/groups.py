"""Who is in a consumer group, seen from outside."""

from collections.abc import Mapping
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from rbstream.kafka.clients import Complaints, admin_config, with_voice
from rbstream.kafka.patience import Patience
from rbstream.kafka.topics import ANSWER_SECONDS

# A coordinator that has just started takes seconds.
PATIENCE = Patience(ANSWER_SECONDS, lambda: None)


def members(side: str, config: Mapping[str, Any], group: str) -> int | None:
    """How many members a group has, 0 where there is no such group; None where we may not know, or have one.

    side: `source` or `sink`, for messages. config: a client's. Raises KafkaFailure where Kafka does not answer.
    """
    admin = AdminClient(with_voice(admin_config(config), Complaints(f"{side} admin")))

    def ask(seconds: float) -> int | None:
        (asked,) = admin.describe_consumer_groups([group], request_timeout=max(2.0, seconds)).values()
        try:
            return len(asked.result().members)
        except KafkaException as error:
            code = error.args[0].code()
            if code == KafkaError.GROUP_AUTHORIZATION_FAILED:
                return None
            if code == KafkaError.GROUP_ID_NOT_FOUND:
                return 0
            raise

    return PATIENCE.insist(f"asking for group {group} at the {side}", ask)
