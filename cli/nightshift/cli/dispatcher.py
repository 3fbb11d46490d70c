"""`nightshift dispatcher`: one dispatcher in the foreground."""

import signal
from pathlib import Path
from threading import Event

import click

from nightshift.cli.options import data_dir_option, read_settings

__all__ = ["dispatcher"]


@click.command()
@data_dir_option
def dispatcher(data_dir: Path | None) -> None:
    """Run a dispatcher until stopped; of several, only one acts at a time.

    \b
    Example:
      nightshift dispatcher
    """
    from nightshift.api.services import open_services, wait_for_database
    from nightshift.cli.logs import log_to_stderr
    from nightshift.producers.dispatcher import Dispatcher
    from nightshift.stack import resolve_urls
    from nightshift.stores.broker.broker import Broker

    settings = read_settings(data_dir)
    log_to_stderr(settings.log_level)
    urls = resolve_urls(settings)
    wait_for_database(urls.database_url)
    stop = Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: stop.set())
    # Short: while one run waits for Milvus, the others need the dispatcher.
    with open_services(settings, patience_s=3.0, application="nightshift dispatcher") as services:
        broker = Broker(urls.redis_url)
        try:
            Dispatcher(
                database=services.database,
                vectors=services.vectors,
                broker=broker,
                settings=settings,
            ).run(stop)
        finally:
            broker.close()
