"""Logs: one structured line per fact, to standard error; the console form for people, JSON for machines."""

from __future__ import annotations

import logging
import sys

import structlog

from streams.settings import Settings

#: Faust and mode narrate every start and stop at info; what matters of it we log ourselves.
QUIET_LIBRARIES = ("faust", "mode", "aiokafka", "asyncio", "httpx", "alembic")


def configure_logging(settings: Settings, **context: str) -> None:
    """Set up structlog for this process; ``context`` (for example ``app=``) is on every line."""
    level = logging.getLevelNamesMapping().get(settings.log_level.upper(), logging.INFO)
    json = settings.log_format == "json"
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer() if json else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(**context)
    logging.basicConfig(
        level=logging.WARNING, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s"
    )
    for name in QUIET_LIBRARIES:
        logging.getLogger(name).setLevel(logging.WARNING)
