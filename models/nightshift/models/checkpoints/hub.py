"""Read files of the Hugging Face hub, or of its cache where the hub does not answer in seconds."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from time import monotonic

from huggingface_hub import constants, get_session, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

from nightshift.schema.errors import ModelError

__all__ = ["cached_folder", "hub_file", "hub_if_reached", "offline"]

# A name that nobody resolves, or packets that nobody answers, cost this much and no more; left to
# itself the library tries for more than a minute, for each file.
_PATIENCE_S = 5.0
_REMEMBER_S = 30.0


def hub_file(name: str, file: str) -> Path:
    """A file of a repository at its default branch: from the hub, or what the cache has of it.

    Raises:
        ModelError: Neither has it.
    """
    try:
        with hub_if_reached() as unreached:
            return Path(hf_hub_download(name, file))
    except LocalEntryNotFoundError as error:
        raise ModelError(_not_cached(name, file, unreached), name) from error
    except (OSError, HFValidationError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(f"{name}: {file} cannot be read from the hub: {first}", name) from error


def cached_folder(name: str) -> Path | None:
    """Where the cache has the default branch of a repository; None where it does not."""
    config = try_to_load_from_cache(name, "config.json")
    config = config or try_to_load_from_cache(name, "open_clip_config.json")
    return Path(config).parent if isinstance(config, str) else None


@contextmanager
def hub_if_reached() -> Iterator[str]:
    """Let the libraries use the cache alone inside where the hub does not answer in seconds.

    Yields:
        Why it was not asked; empty where it answers.
    """
    if constants.HF_HUB_OFFLINE:
        yield "HF_HUB_OFFLINE is set"
        return
    reason = _unreached_reason()
    if not reason:
        yield ""
        return
    with offline():
        yield reason


@contextmanager
def offline() -> Iterator[None]:
    """Let the libraries use the cache alone inside."""
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _not_cached(name: str, file: str, unreached: str) -> str:
    reason = unreached or f"{constants.ENDPOINT} could not be asked for it"
    return (
        f"{name}: {file} is not in the cache of this machine ({constants.HF_HUB_CACHE}), and "
        f"{reason}: connect it, copy a cache that has the model, or give the model's directory "
        "(HF_HUB_OFFLINE=1 leaves the network out altogether)"
    )


#: When the hub was last asked, by the clock `monotonic`, and the reason that it did not answer.
_last_answer: list[tuple[float, str]] = []


def _unreached_reason() -> str:
    """Say why the hub does not answer; empty if it does, with any status."""
    if _last_answer and monotonic() - _last_answer[-1][0] < _REMEMBER_S:
        return _last_answer[-1][1]
    failed: list[str] = []

    def ask() -> None:
        try:
            get_session().head(constants.ENDPOINT, timeout=_PATIENCE_S)
        except Exception as error:  # noqa: BLE001 - whatever stands between us and the hub
            failed.append(
                f"{constants.ENDPOINT} cannot be reached ({error or type(error).__name__})"
            )
        else:
            failed.append("")

    # Resolving a name takes no timeout: a thread that hangs in it is left behind.
    asking = Thread(target=ask, name="ask hub", daemon=True)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    asking.start()
    asking.join(_PATIENCE_S + 1.0)
    said = (
        failed[0] if failed else f"{constants.ENDPOINT} does not answer within {_PATIENCE_S:.0f} s"
    )
    _last_answer[:] = [(monotonic(), said)]
    return said
