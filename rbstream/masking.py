"""Secrets stay out of reprs, logs, errors and `rbstream config show`."""

import re
from collections.abc import Mapping
from typing import Any

MASK = "********"
# By what librdkafka calls them: sasl.password, ssl.key.pem, sasl.oauthbearer.client.secret, ...
_SECRET = re.compile(r"password|passphrase|secret|token(?!\.endpoint)|key\.pem|private\.key|oauthbearer\.config|jaas")
_CREDENTIALS = re.compile(r"(?<=://)[^/?#\s]*@")


def masked(name: str, value: Any) -> Any:
    """The value as it may be shown. name: of the setting or of librdkafka's property."""
    if isinstance(value, Mapping):
        return {key: masked(f"{name}.{key}", each) for key, each in value.items()}
    if isinstance(value, str):
        return MASK if _SECRET.search(name.lower()) else _CREDENTIALS.sub(f"{MASK}@", value)
    return value
