"""Errors that carry policy: what each one means for a packet, or for the whole run."""

from enum import IntEnum


class ExitStatus(IntEnum):
    """What the process says to its caller."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    LIMIT = 3
    INTERRUPTED = 130  # 128 + SIGINT, as shells say it


class RbstreamError(Exception):
    """A fault that is ours or the operator's: the run stops, with nothing half-written."""

    status = ExitStatus.FAILED


class UsageError(RbstreamError):
    """What was asked for cannot be done as asked; the message says what to ask instead."""

    status = ExitStatus.USAGE


class LimitError(RbstreamError):
    """A safety limit stopped the run."""

    status = ExitStatus.LIMIT


class Interrupted(RbstreamError):
    """Ctrl-C in a run that keeps what it has done; the message says how to go on."""

    status = ExitStatus.INTERRUPTED


class ModelError(RbstreamError):
    """A bundle that can't be trusted or a device that can't serve it. Never a fault of the packet."""


class Rejection(Exception):
    """A fault in a packet's own bytes: this packet gets the verdict `rejected`, the run goes on.

    stage: the step of the way that refused it: container, schema, record, layout or cutout.
    reason: one short word from `docs/rejections.md`, the label that counts are kept by.
    detail: what was wrong and where, for a person.
    """

    def __init__(self, stage: str, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.stage = stage
        self.reason = reason
        self.detail = detail

    def __reduce__(self) -> tuple[type["Rejection"], tuple[str, str, str]]:
        return Rejection, (self.stage, self.reason, self.detail)
