"""Backups of an embedded stack: made while it runs, verified before they are restored."""

from nightshift.stack.backup.create import back_up
from nightshift.stack.backup.manifest import BackupManifest
from nightshift.stack.backup.restore import restore

__all__ = ["BackupManifest", "back_up", "restore"]
