"""Logs on standard error: readable on a terminal, one JSON object a line elsewhere."""

import json
import logging
import sys
from datetime import UTC, datetime

from rbstream.settings import Log

# What a log record has of its own; anything else was given as `extra` and belongs into the line.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "taskName"}


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_extra(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            line["stack"] = record.stack_info
        return json.dumps(line, default=str)


class _TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        extra = " ".join(f"{name}={value}" for name, value in _extra(record).items())
        first, newline, rest = text.partition("\n")  # a traceback stays at the end
        return f"{first} ({extra}){newline}{rest}" if extra else text


def _extra(record: logging.LogRecord) -> dict[str, object]:
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}


def set_up(settings: Log | None = None) -> None:
    """Send rbstream's logs to standard error. settings: None before they are known; called again, it starts afresh."""
    settings = settings or Log()
    text = settings.format == "text" or (settings.format == "auto" and sys.stderr.isatty())
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_TextFormatter("%(levelname)s: %(message)s") if text else _JsonFormatter())
    logger = logging.getLogger("rbstream")
    logger.handlers = [handler]
    logger.setLevel(settings.level.upper())
    logger.propagate = False
