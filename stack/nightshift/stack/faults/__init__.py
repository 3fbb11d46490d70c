"""Fault injection: failures that a night may bring to a live run, one function each.

A function breaks something only while jobs run, waits until it works again, and returns a sentence
that says what it did. It returns None if there was nothing to break.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from nightshift.stack.faults.connections import drop_connections
from nightshift.stack.faults.disks import fill_disk
from nightshift.stack.faults.drill import DrillReport, drill
from nightshift.stack.faults.messages import duplicate_messages, reorder_messages
from nightshift.stack.faults.processes import freeze_worker, kill_worker
from nightshift.stack.faults.services import flush_redis, kill_milvus, kill_postgres, kill_redis
from nightshift.stack.faults.target import FaultTarget, HeldJob

__all__ = ["FAULTS", "DrillReport", "FaultTarget", "HeldJob", "drill"]

#: Kind of fault → function.
FAULTS: Mapping[str, Callable[[FaultTarget], str | None]] = MappingProxyType(
    {
        "kill-worker": kill_worker,
        "freeze-worker": freeze_worker,
        "kill-redis": kill_redis,
        "flush-redis": flush_redis,
        "kill-postgres": kill_postgres,
        "kill-milvus": kill_milvus,
        "duplicate-messages": duplicate_messages,
        "reorder-messages": reorder_messages,
        "drop-connections": drop_connections,
        "fill-disk": fill_disk,
    }
)
