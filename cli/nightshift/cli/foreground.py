"""`nightshift dispatcher` and `nightshift worker`: one process each, in the foreground."""

import gc
import logging
import signal
from pathlib import Path
from threading import Event
from time import monotonic, sleep

import click

from nightshift.cli.main import LazyGroup
from nightshift.cli.options import data_dir_option, read_settings

__all__ = ["dispatcher", "log_to_stderr", "worker"]

#: Whoever starts everything at once need not start it in order.
_START_S = 60.0
_STAGES = "embed,search,score,rank,answer,codebook,tokens"


@click.command()
@data_dir_option
def dispatcher(data_dir: Path | None) -> None:
    """Run a dispatcher until stopped; any number may run, one acts.

    \b
    Example:
      nightshift dispatcher
    """
    from nightshift.api.services import open_services
    from nightshift.producers.dispatcher import Dispatcher
    from nightshift.stack.embedded import resolve_urls
    from nightshift.stores.broker.broker import Wire

    settings = read_settings(data_dir)
    log_to_stderr(settings.log_level)
    urls = resolve_urls(settings)
    _wait_for_database(urls.database_url)
    stop = Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: stop.set())
    # Short: while one run waits for Milvus, the others need the dispatcher.
    with open_services(settings, patience_s=3.0, application="nightshift dispatcher") as services:
        wire = Wire(urls.redis_url)
        try:
            Dispatcher(
                database=services.database,
                vectors=services.vectors,
                wire=wire,
                settings=settings,
            ).run(stop)
        finally:
            wire.close()


@click.group(
    cls=LazyGroup,
    lazy={"list": "nightshift.cli.workers:list_workers"},
    invoke_without_command=True,
)
@click.option(
    "--queues",
    default=_STAGES,
    show_default=True,
    help="Stages to serve: any of embed, search, score, rank, answer, codebook, tokens.",
)
@click.option(
    "--device", default="auto", show_default=True, help="auto, cpu, cuda, or cuda:N for one GPU."
)
@data_dir_option
@click.pass_context
def worker(ctx: click.Context, queues: str, device: str, data_dir: Path | None) -> None:
    """Run a worker in the foreground until stopped, or `list` those that run.

    SIGTERM lets it finish the job in hand within the grace period, or hand it back; a second one
    hands it back at once.

    \b
    Examples:
      nightshift worker
      nightshift worker --queues score --device cuda:1
      nightshift worker list
    """
    if ctx.invoked_subcommand is not None:
        return
    from nightshift.schema.errors import ConfigurationError
    from nightshift.schema.states import Stage
    from nightshift.stack.embedded import resolve_urls

    names = [name.strip() for name in queues.split(",")]
    unknown = [name for name in names if name not in set(Stage)]
    if unknown:
        raise ConfigurationError(f"--queues: {', '.join(unknown)} is not among {_STAGES}")
    settings = read_settings(data_dir)
    log_to_stderr(settings.log_level)
    if device not in {"auto", "cpu"}:
        from nightshift.models.load import pick_device

        pick_device(device)  # refused now, not at the first job
    _wait_for_database(resolve_urls(settings).database_url)
    stages = frozenset(Stage(name) for name in names)

    gc.disable()  # an import leaves no garbage, and a seventh of its time would go into looking
    from nightshift.workers.app import run_worker

    gc.freeze()  # nor is what it made ever looked at again
    gc.enable()
    raise SystemExit(run_worker(settings, stages=stages, device=device))


def _wait_for_database(url: str) -> None:
    """Return once Postgres answers; give up after a while."""
    from nightshift.migrations import require_current
    from nightshift.schema.errors import ServiceUnavailableError

    deadline = monotonic() + _START_S
    while True:
        try:
            return require_current(url)
        except ServiceUnavailableError:
            if monotonic() > deadline:
                raise
        sleep(0.5)


def log_to_stderr(level: str) -> None:
    """Our own log at the level asked for; of the libraries only what is wrong."""
    from nightshift.cli.output import VisibleFormatter
    from nightshift.cli.repeats import OncePerMinute

    lines = logging.StreamHandler()
    lines.addFilter(OncePerMinute())
    lines.setFormatter(VisibleFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[lines])
    logging.getLogger("nightshift").setLevel(level)
