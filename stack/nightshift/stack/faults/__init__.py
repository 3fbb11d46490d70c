"""Faults on purpose: what a night may do to a live run, one small function each.

Every function strikes only while jobs run, waits until what it broke has been put right again, and
says what it did; it returns None where it found nothing to strike.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from nightshift.stack.faults.connections import drop_connections
from nightshift.stack.faults.disks import fill_disk
from nightshift.stack.faults.drill import DrillReport, drill
from nightshift.stack.faults.messages import duplicate_messages, reorder_messages
from nightshift.stack.faults.processes import freeze_worker, kill_worker
from nightshift.stack.faults.services import flush_redis, kill_milvus, kill_postgres, kill_redis
from nightshift.stack.faults.site import Held, Site

__all__ = ["FAULTS", "DrillReport", "Held", "Site", "drill"]

#: Kind → function.
FAULTS: Mapping[str, Callable[[Site], str | None]] = MappingProxyType(
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
