"""The embedded stack: Postgres, Redis and Milvus Lite in one data directory, started detached."""

from nightshift.stores.embedded.stack import Stack
from nightshift.stores.embedded.state import ServiceUrls
from nightshift.stores.embedded.status import PartStatus, StackStatus
from nightshift.stores.embedded.supervisor import Supervisor, only_supervisor
from nightshift.stores.embedded.urls import resolve_database_url, resolve_urls

__all__ = [
    "PartStatus",
    "ServiceUrls",
    "Stack",
    "StackStatus",
    "Supervisor",
    "only_supervisor",
    "resolve_database_url",
    "resolve_urls",
]
