"""Error handling of every command: an error becomes a message, a reference and an exit code."""

import logging
import os
import select
import sys
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_hex

from nightshift.schema.display import visible
from nightshift.schema.errors import ConfigurationError, NightshiftError, RequestError

__all__ = ["INTERRUPTED", "PIPE_CLOSED", "report_error"]

#: Exit codes as in a shell: 128 plus the number of SIGINT or SIGPIPE.
INTERRUPTED, PIPE_CLOSED = 130, 141

_LOG = "errors.log"


def report_error(
    error: BaseException,
    command: str,
    words: Sequence[str],
    options: Mapping[str, str] | None = None,
) -> int:
    """Print an error to stderr without a traceback, SQL or a secret.

    An unexpected error is appended, with its traceback, to `logs/errors.log` in the data directory,
    under a reference that the message names.

    Args:
        error: The exception.
        command: The command, such as `nightshift run list`.
        words: The command line after `nightshift`; `--data-dir` says where the log is.
        options: Field of a request → the option of the command that sets it.

    Returns:
        The exit code.
    """
    if isinstance(error, KeyboardInterrupt):
        _print_line("interrupted")
        return INTERRUPTED
    if isinstance(error, BrokenPipeError) and _reader_is_gone():
        _discard_output()
        return PIPE_CLOSED
    if isinstance(error, RequestError):
        names = options or {}
        _print_line(f"Error: {error.describe(lambda field: names.get(field, field), '{} {}')}")
        return error.exit_code
    if isinstance(error, NightshiftError):
        _print_line(f"Error: {error}")
        return error.exit_code
    from nightshift.stores.foreign_errors import translated_foreign

    reference = token_hex(4)
    place = _log_traceback(error, command, words, reference)
    known = translated_foreign(error) or _bad_argument(error, words)
    if known is None:
        _print_line(
            f"Error: `{command}` ended with an unexpected {type(error).__name__}. This is a fault "
            f"of Nightshift; please report it with its traceback: {place}"
        )
        return NightshiftError.exit_code
    _print_line(f"Error: {known} (details: {place})")
    return known.exit_code


def _bad_argument(error: BaseException, words: Sequence[str]) -> NightshiftError | None:
    """The error of an argument that is not UTF-8, which no catalogue and no id can be."""
    for word in words if isinstance(error, UnicodeEncodeError) else ():
        try:
            word.encode()
        except UnicodeEncodeError:
            return ConfigurationError(f"{word!a} is not UTF-8; write it in UTF-8")
    return None


def _print_line(message: str) -> None:
    """Print one line; text from outside can neither add a line nor move the cursor."""
    from nightshift.stores.files.addresses import without_password

    with suppress(OSError, ValueError):
        sys.stdout.flush()
    try:
        line = visible(without_password(" ".join(message.split())))
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()
    except (OSError, ValueError, RuntimeError):
        _discard_output()


def _log_traceback(error: BaseException, command: str, words: Sequence[str], reference: str) -> str:
    """Append the traceback to the log; returns its place, or a note that it was not kept."""
    from nightshift.stores.files.addresses import without_password

    try:
        text = "".join(traceback.format_exception(error))
        path = _data_dir(words) / "logs" / _LOG
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK
        with os.fdopen(os.open(path, flags, 0o600), "w", errors="backslashreplace") as log:
            log.write(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} {reference} {command}\n")
            log.write(visible(without_password(text), keep="\n") + "\n")
    except Exception:  # an error while reporting one must not hide it
        logging.getLogger(__name__).debug("the traceback could not be kept", exc_info=True)
        return "it could not be written to the data directory"
    return f"{path}, reference {reference}"


def _data_dir(words: Sequence[str]) -> Path:
    for position, word in enumerate(words):
        if word == "--data-dir" and position + 1 < len(words):
            return Path(words[position + 1])
        if word.startswith("--data-dir="):
            return Path(word.partition("=")[2])
    from nightshift.cli.options import read_settings

    return read_settings().data_dir


def _reader_is_gone() -> bool:
    """Tell if standard output or standard error is a pipe whose reader is gone."""
    poll = select.poll()
    for stream in (sys.stdout, sys.stderr):
        try:
            poll.register(stream.fileno(), 0)
        except (OSError, ValueError, AttributeError):
            return True  # a stream that the caller replaced: its reader cannot be checked
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def _discard_output() -> None:
    """Discard buffered output; otherwise Python prints an error about it when it exits."""
    with suppress(OSError, ValueError, AttributeError):
        devnull = os.open(os.devnull, os.O_WRONLY)
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError, AttributeError):
                stream.flush()
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError, AttributeError):
                os.dup2(devnull, stream.fileno())
        os.close(devnull)
