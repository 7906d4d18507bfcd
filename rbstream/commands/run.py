"""`rbstream run`."""

import argparse
import logging
from typing import Any

from rbstream.arguments import add_command, add_model_settings, add_setting, add_settings, given_settings
from rbstream.errors import ExitStatus, RbstreamError, UsageError

logger = logging.getLogger(__name__)


def add_run(commands: Any) -> None:
    """The command, with its arguments."""
    command = add_command(commands, "run", _run, "Score alerts from Kafka, and republish those that pass.")
    add_setting(command, "--bootstrap-servers", "source.bootstrap_servers", metavar="HOST:PORT")
    add_setting(command, "--topics", "source.topics", metavar="TOPIC[,TOPIC...]")
    add_setting(command, "--group", "source.group_id", metavar="GROUP")
    add_setting(command, "--output", "sink.topic", metavar="TOPIC")
    add_setting(command, "--dead-letters", "sink.dead_letters", metavar="TOPIC")
    add_setting(command, "--scores", "sink.scores", metavar="TOPIC")
    add_model_settings(command)
    add_setting(command, "--threshold", "filter.threshold", metavar="DRB")
    add_setting(command, "--where", "filter.where", metavar="EXPRESSION")
    command.add_argument(
        "--accept-rejects", type=int, default=0, metavar="N",
        help="Let the next N rejections through, uncounted: to get past what halted a worker with status 3",
    )  # fmt: skip
    add_settings(command)


def _run(options: argparse.Namespace) -> int:
    from rbstream.worker.run import run

    if options.accept_rejects < 0:
        raise UsageError(f"--accept-rejects {options.accept_rejects}: a number of rejections, 0 or more")
    settings = given_settings(options)
    try:
        run(settings, options.accept_rejects)
    except RbstreamError as error:  # said in words on standard error too, but logs are read by their lines
        logger.critical("%s", error, extra={"status": int(error.status)})
        raise
    return ExitStatus.DONE
