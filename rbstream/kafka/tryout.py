"""Whether librdkafka takes the properties it is given, asked without connecting to anything."""

import logging
from collections.abc import Callable, Mapping
from typing import Any

import confluent_kafka

from rbstream.errors import UsageError
from rbstream.kafka.clients import consumer_config, member_config, producer_config, reader_config
from rbstream.settings import Settings

# Without servers there is nobody to connect to, and without this method no token to be fetched.
_SERVERS, _FETCHES = "bootstrap.servers", ("sasl.oauthbearer.method", "oidc")


def try_clients(settings: Settings) -> None:
    """Make all clients there can be, and let them go. Raises UsageError with librdkafka's words for what it refuses.

    A misspelt name, a value out of bounds, a certificate that can't be read, properties that exclude each other.
    """
    for config in (consumer_config(settings), reader_config(settings), member_config(settings)):
        _try("source", lambda config: confluent_kafka.Consumer(config).close(), config)
    _try("sink", confluent_kafka.Producer, producer_config(settings))


def _try(client: str, make: Callable[[dict[str, Any]], object], config: Mapping[str, Any]) -> None:
    alone = {name: value for name, value in config.items() if name != _SERVERS and (name, value) != _FETCHES}
    try:
        make({**alone, "logger": _nobody})
    except (confluent_kafka.KafkaException, TypeError, ValueError) as error:
        told = error.args[0].str() if isinstance(error, confluent_kafka.KafkaException) else str(error)
        raise UsageError(f"{client}.properties: the Kafka client says: {told}") from error


_nobody = logging.Logger("nobody", logging.CRITICAL + 1)
