"""Detached processes: recognised by pid and start time, stopped by their own signal."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nightshift.schema.errors import ServiceUnavailableError

__all__ = [
    "Launch",
    "ProcessRecord",
    "StopRule",
    "end_strays",
    "is_alive",
    "is_copied",
    "is_earlier",
    "is_used_by",
    "log_tail",
    "read_record",
    "spawn",
    "stop",
    "works_in",
]

#: A log beyond this many bytes is moved aside when its program starts; one generation is kept.
_LOG_LIMIT_BYTES = 16 * 2**20

#: Processes that this one started. They are polled so that a killed one does not stay a zombie,
#: which Postgres would take for a living server.
_children: set[subprocess.Popen[bytes]] = set()


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """The command line of a program, and what it runs with."""

    argv: tuple[str, ...]
    #: The whole environment.
    env: Mapping[str, str] = field(repr=False)
    #: None keeps the current directory.
    cwd: Path | None = None
    #: System user that the program runs as; None keeps the present one.
    user: str | None = None
    #: File mode creation mask; -1 keeps the present one.
    umask: int = -1

    @property
    def digest(self) -> str:
        """Hash of command line and settings; a running program with another one is out of date."""
        settings = sorted(item for item in self.env.items() if item[0].startswith("NIGHTSHIFT_"))
        return sha256(repr((self.argv, settings)).encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class StopRule:
    """The signal that ends a program cleanly, and the time that it may take."""

    stop_signal: signal.Signals = signal.SIGTERM
    #: Seconds until it is killed.
    wait_s: float


class ProcessRecord(BaseModel):
    """The content of a pid file: enough to tell the program from a later one of the same pid."""

    model_config = ConfigDict(frozen=True, serialize_by_alias=True, validate_by_name=True)

    pid: int
    #: Clock ticks from boot to start: unlike a wall-clock time, no clock correction moves it.
    start_ticks: int
    boot_id: str
    #: Unix time, only for display.
    started_at: float
    #: `Launch.digest` it was started with.
    digest: str
    #: Device and inode of the folder of the pid file. A copy of a data directory has the pid files
    #: of the original's programs, but in another folder; a moved directory keeps its folder.
    folder: tuple[int, int] | None = Field(
        default=None, validation_alias="home", serialization_alias="home"
    )


def spawn(launch: Launch, log: Path, record_path: Path) -> ProcessRecord:
    """Start a program in a session of its own and write its pid file.

    Raises:
        PermissionError: When this process may not become the system user of `launch`.
    """
    if log.exists() and log.stat().st_size > _LOG_LIMIT_BYTES:
        log.replace(log.with_suffix(log.suffix + ".1"))
    with open(log, "ab", opener=_private) as output:
        child = subprocess.Popen(
            launch.argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=dict(launch.env),
            cwd=launch.cwd,
            user=launch.user,
            group=launch.user,
            extra_groups=[] if launch.user else None,
            start_new_session=True,
            umask=launch.umask,
        )
    _children.add(child)
    record = ProcessRecord(
        pid=child.pid,
        start_ticks=_start_ticks(child.pid) or 0,
        boot_id=_boot_id(),
        started_at=time.time(),
        digest=launch.digest,
        folder=_folder_id(record_path.parent),
    )
    record_path.write_text(record.model_dump_json())
    return record


def read_record(path: Path) -> ProcessRecord | None:
    """Read a pid file; None if there is none, it is incomplete, or it is a copy.

    A copy names a program of the original directory, which must not be stopped from here.
    """
    try:
        record = ProcessRecord.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
    own = record.folder == _folder_id(path.parent) or is_earlier(record, path.parent.parent)
    return record if own else None


def is_copied(path: Path) -> bool:
    """True if a pid file came here in a copy of the directory that its program was started in."""
    try:
        folder = ProcessRecord.model_validate_json(path.read_bytes()).folder
    except (FileNotFoundError, ValidationError):
        return False
    return folder is not None and folder != _folder_id(path.parent)


def is_earlier(record: ProcessRecord, data_dir: Path) -> bool:
    """True for a living program of an earlier version, whose pid files do not name their folder.

    Services of such a version work in a folder of the data directory, its other programs have the
    directory's name in their environment; a copy of the directory has another name.
    """
    if record.folder is not None or not is_alive(record):
        return False
    here = os.fsencode(data_dir.resolve())
    program = Path(f"/proc/{record.pid}")
    try:
        if os.fsencode((program / "cwd").readlink().parent) == here:
            return True
        return b"NIGHTSHIFT_DATA_DIR=" + here in (program / "environ").read_bytes().split(b"\0")
    except OSError:  # it has ended, or is another user's
        return False


def is_alive(record: ProcessRecord) -> bool:
    """True if the recorded process lives; not a zombie, nor a later process of the same pid."""
    for child in list(_children):
        if child.poll() is not None:
            _children.discard(child)
    return record.boot_id == _boot_id() and _start_ticks(record.pid) == record.start_ticks


def works_in(record: ProcessRecord, directory: Path) -> bool:
    """True if the process works in this directory, whatever its path; also True if unknown."""
    try:
        return _folder_id(Path(f"/proc/{record.pid}/cwd")) == _folder_id(directory)
    except PermissionError:  # another user's process, and this one lacks the right to look
        return True
    except OSError:
        return False


def stop(record: ProcessRecord, rule: StopRule) -> bool:
    """Send a process its stop signal, and kill it if it does not end in time.

    Returns:
        True if the process ended by itself.
    """
    _send(record, rule.stop_signal)
    if _gone_within(record, rule.wait_s):
        return True
    _send(record, signal.SIGKILL)
    _gone_within(record, 10.0)
    return False


def end_strays(directory: Path, marker: str, number: signal.Signals) -> None:
    """End processes that work in `directory` and have no pid file.

    Examples are the backends of a killed Postgres, and a server whose starter was killed before it
    wrote the pid file.

    Args:
        directory: Working directory of those processes.
        marker: Part of their program's name or arguments; other processes are left alone.
        number: The signal to those that do not end by themselves within 2 s.

    Raises:
        ServiceUnavailableError: When some are left after 60 s.
    """
    start = time.monotonic()
    signalled: set[int] = set()
    while pids := set(_processes_in(directory, marker)):
        if time.monotonic() - start > 60.0:
            raise ServiceUnavailableError(f"processes {pids} still use {directory}: end them")
        if time.monotonic() - start > 2.0:
            for pid in pids - signalled:
                _signal(pid, number)
            signalled |= pids
        time.sleep(0.05)


def is_used_by(directory: Path, marker: str) -> bool:
    """True if a process with this marker works in `directory`; see `end_strays`."""
    return any(True for _ in _processes_in(directory, marker))


def log_tail(log: Path, lines: int = 12) -> str:
    """Return the last lines of a log, for an error message."""
    if not log.exists():
        return "(no log)"
    with log.open("rb") as stream:
        stream.seek(max(0, log.stat().st_size - 8192))
        return "\n".join(stream.read().decode(errors="replace").splitlines()[-lines:])


def _processes_in(directory: Path, marker: str) -> Iterator[int]:
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or _start_ticks(int(entry.name)) is None:
            continue
        try:
            here = (entry / "cwd").readlink() == directory
            if here and (
                marker in (entry / "exe").readlink().name
                or marker.encode() in (entry / "cmdline").read_bytes()
            ):
                yield int(entry.name)
        except OSError:  # it has ended, or is another user's
            continue


def _gone_within(record: ProcessRecord, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while is_alive(record):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def _send(record: ProcessRecord, number: signal.Signals) -> None:
    if is_alive(record):
        _signal(record.pid, number)


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _start_ticks(pid: int) -> int | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The program's name, in parentheses, may itself contain blanks and parentheses.
    fields = stat.rpartition(")")[2].split()
    # A zombie whose other threads have not ended yet still holds its files and ports.
    gone = fields[0] in {"Z", "X"} and int(fields[17]) <= 1
    return None if gone else int(fields[19])


def _folder_id(directory: Path) -> tuple[int, int]:
    status = directory.stat()
    return status.st_dev, status.st_ino


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
