"""Logs on standard error: readable on a terminal, one JSON object a line elsewhere."""

import json
import logging
import sys
from datetime import UTC, datetime

# What a log record has of its own; anything else was given as `extra` and belongs into the line.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "taskName"}


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **{key: value for key, value in vars(record).items() if key not in _STANDARD},
        }
        return json.dumps(line, default=str)


def set_up() -> None:
    """Send rbstream's logs to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    readable = logging.Formatter("%(levelname)s: %(message)s")
    handler.setFormatter(readable if sys.stderr.isatty() else _JsonFormatter())
    logger = logging.getLogger("rbstream")
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False
