"""Start a service and wait until it answers."""

import time
from pathlib import Path

from nightshift.schema.errors import ServiceUnavailableError
from nightshift.stack.embedded import process
from nightshift.stack.embedded.parts import Parts
from nightshift.stack.embedded.process import ProcessRecord
from nightshift.stack.embedded.service import Service
from nightshift.stack.embedded.state import StackState, port_is_free

__all__ = ["ensure_service"]

#: A service that has not answered for so long is given up. Redis answers only after it has read its
#: append-only file.
_START_TIMEOUT_S = 180.0
_MAX_STARTS = 3


def ensure_service(service: Service, state: StackState, parts: Parts, data_dir: Path) -> None:
    """Start a service unless it runs, and wait until it answers.

    Args:
        service: The service.
        state: The state of the data directory; saved whenever a port is chosen.
        parts: The parts of the data directory.
        data_dir: The data directory.

    Raises:
        ServiceUnavailableError: When it does not come up; carries the end of its log.
    """
    record = parts.living(service.name)
    if record is not None and _wait_until_ready(service, record, parts):
        return
    for _ in range(_MAX_STARTS):
        # Workers know this port; another one is chosen only if another program keeps it.
        if not port_is_free(state.port(service.name), wait_s=2.0):
            state.choose_port(service.name)
        service.prepare()
        state.save(data_dir)
        record = parts.spawn(service.name, service.launch())
        if _wait_until_ready(service, record, parts):
            return
        if port_is_free(state.port(service.name)):  # the port was not the reason that it ended
            break
    log = parts.log_path(service.name)
    raise ServiceUnavailableError(
        f"{service.name} ended while starting; the end of {log}:\n{process.log_tail(log)}",
        service.name,
    )


def _wait_until_ready(service: Service, record: ProcessRecord, parts: Parts) -> bool:
    """True once the service answers, False if its process ended."""
    deadline = time.monotonic() + _START_TIMEOUT_S
    while process.is_alive(record):
        if service.ready():
            return True
        if time.monotonic() > deadline:
            log = parts.log_path(service.name)
            raise ServiceUnavailableError(
                f"{service.name} (pid {record.pid}) has not answered for {_START_TIMEOUT_S:.0f} s: "
                f"`nightshift down` ends it; the end of {log}:\n{process.log_tail(log)}",
                service.name,
            )
        time.sleep(0.05)
    return False
