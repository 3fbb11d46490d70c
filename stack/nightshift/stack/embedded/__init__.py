"""The embedded stack: Postgres, Redis and Milvus Lite in one data directory, started detached."""

from nightshift.stack.embedded.stack import Stack
from nightshift.stack.embedded.state import ServiceUrls
from nightshift.stack.embedded.status import PartStatus, StackStatus
from nightshift.stack.embedded.supervisor import Supervisor, only_supervisor
from nightshift.stack.embedded.urls import resolve_database_url, resolve_urls

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
