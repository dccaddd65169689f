"""Where the library's logs go: warnings as sentences for people, or events with fields for those who run services."""

from __future__ import annotations

import logging
import sys


def begin(verbosity: int = 0, *, is_service: bool = False) -> None:
    """Log to stderr. A service logs all that the library tells as events; other commands only warnings, or events with ``-v``."""
    is_chatty = is_service or verbosity > 0
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_event_formatter() if is_chatty else logging.Formatter("distci: %(message)s"))
    if verbosity > 1:
        ours, foreign = logging.DEBUG, logging.INFO
    elif is_chatty:
        ours, foreign = logging.INFO, logging.WARNING
    else:
        # What a back end's library warns of reaches people as our own error, if it matters.
        ours, foreign = logging.WARNING, logging.ERROR
    logging.basicConfig(handlers=[handler], level=foreign, force=True)
    logging.getLogger("distci").setLevel(ours)
    # What becomes of the connection reaches people as our own error, if it matters.
    logging.getLogger("distci.coordination").setLevel(logging.NOTSET if is_chatty else foreign)
    # ZooKeeper's library has several lines for every try to connect.
    logging.getLogger("distci.coordination.zookeeper.kazoo").setLevel(logging.NOTSET if verbosity else logging.ERROR)


def _event_formatter() -> logging.Formatter:
    """key=value on a terminal, JSON where a program reads."""
    import structlog

    from distci import tracing

    def doing(logger: object, method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        """With what it was done for, of which the event itself may know better."""
        return {**tracing.ids(), **event}

    first = ["timestamp", "level", "logger", "event"]
    renderer: structlog.typing.Processor = structlog.processors.JSONRenderer()
    if sys.stderr.isatty():
        renderer = structlog.processors.LogfmtRenderer(key_order=first, drop_missing=True)
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            structlog.stdlib.ExtraAdder(),
            doing,
            structlog.processors.TimeStamper(fmt="iso"),
        ],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            renderer,
        ],
    )
