"""One clear line for what went wrong: a person at a terminal needs the remedy, not the stack trace."""

from __future__ import annotations

import errno
import os
import re
import traceback


def debugging() -> bool:
    """Whether stack traces are wanted: ``--debug`` or ``CURFEW_DEBUG=1``."""
    return os.environ.get("CURFEW_DEBUG", "") not in ("", "0")


def explain(error: BaseException) -> str:
    """The line for ``error``; with debugging on, its stack trace too."""
    line = f"error: {_message(error)}"
    return f"{''.join(traceback.format_exception(error))}{line}" if debugging() else line


def _of_kafka(error: Exception) -> str:
    from confluent_kafka import KafkaError

    from streams.settings import Settings

    forbidden = (
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    )
    why = error.args[0]
    if not isinstance(why, KafkaError):
        return f"Kafka: {error}"
    remedy = f"is the broker at {Settings().bootstrap_servers} well? Then try again"
    if why.code() in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION):
        remedy = "create the topics with `curfew topics apply`"
    if why.code() in forbidden:
        remedy = "this user needs the right to do it; `curfew acl` and `curfew queues acl` print what is needed"
    return f"Kafka: {why.str()}: {remedy}"


def _message(error: BaseException) -> str:
    # imported here, since a command that works never needs them and should start quickly
    from confluent_kafka import KafkaException
    from pydantic import ValidationError
    from pydantic_settings import SettingsError
    from sqlalchemy.exc import SQLAlchemyError

    from agents.embedded.errors import StackError
    from streams.core.errors import CurfewError

    if isinstance(error, CurfewError | StackError):
        return str(error)
    if isinstance(error, KafkaException):
        return _of_kafka(error)
    if isinstance(error, ValidationError):
        return "settings: " + "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
    if isinstance(error, SettingsError):
        found = re.search('field "([a-z_]+)"', str(error))
        name = f"CURFEW_{found.group(1).upper()}" if found else "an environment variable"
        return f'settings: {name} is no JSON: write a list as ["a", "b"], a table as {{"name": "value"}}'
    if isinstance(error, SQLAlchemyError):
        return f"billing store: {str(error).splitlines()[0]}; is database_url right?"
    if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
        return f"{error.strerror}: choose another --port or --health-port, or 0 for a free one"
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}" if error.filename else str(error)
    return f"{type(error).__name__}: {error} (a bug; run again with --debug and report what it prints)"
