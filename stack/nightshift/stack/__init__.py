"""The embedded stack of services and programs, its backups, and faults for drills.

`nightshift.stack.backup` copies a stack, `nightshift.stack.faults` breaks parts of it on purpose.
"""

from nightshift.stack.embedded.commands import StackCommands
from nightshift.stack.embedded.stack import Stack
from nightshift.stack.embedded.state import ServiceUrls, StackState
from nightshift.stack.embedded.status import PartStatus, StackStatus
from nightshift.stack.embedded.supervisor import Supervisor, only_supervisor
from nightshift.stack.embedded.urls import resolve_database_url, resolve_urls

__all__ = [
    "PartStatus",
    "ServiceUrls",
    "Stack",
    "StackCommands",
    "StackState",
    "StackStatus",
    "Supervisor",
    "only_supervisor",
    "resolve_database_url",
    "resolve_urls",
]
