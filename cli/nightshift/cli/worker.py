"""`nightshift worker`: one worker in the foreground."""

import gc
from pathlib import Path

import click

from nightshift.cli.main import LazyGroup
from nightshift.cli.options import data_dir_option, read_settings

__all__ = ["worker"]

_STAGES = "embed,search,score,rank,answer,codebook,tokens"


@click.group(
    cls=LazyGroup,
    lazy={"list": "nightshift.cli.worker_list:list_workers"},
    invoke_without_command=True,
)
@click.option(
    "--queues",
    default=_STAGES,
    show_default=True,
    help="Stages whose jobs it takes: any of embed, search, score, rank, answer, codebook, tokens.",
)
@click.option(
    "--device", default="auto", show_default=True, help="auto, cpu, cuda, or cuda:N for one GPU."
)
@data_dir_option
@click.pass_context
def worker(ctx: click.Context, queues: str, device: str, data_dir: Path | None) -> None:
    """Run a worker in the foreground until stopped; `list` lists the running workers.

    On SIGTERM the worker finishes its job within the grace period or gives it back; on a second
    SIGTERM it gives the job back immediately.

    \b
    Examples:
      nightshift worker
      nightshift worker --queues score --device cuda:1
      nightshift worker list
    """
    if ctx.invoked_subcommand is not None:
        return
    from nightshift.api.model_checks import require_device
    from nightshift.api.services import wait_for_database
    from nightshift.cli.logs import log_to_stderr
    from nightshift.schema.distribution import require_extras
    from nightshift.schema.errors import ConfigurationError
    from nightshift.schema.states import Stage
    from nightshift.stack import resolve_urls

    require_extras("a worker", "worker")
    names = [name.strip() for name in queues.split(",")]
    unknown = [name for name in names if name not in set(Stage)]
    if unknown:
        raise ConfigurationError(f"--queues: {', '.join(unknown)} is not among {_STAGES}")
    settings = read_settings(data_dir)
    log_to_stderr(settings.log_level)
    require_device(device)  # refused now, not at the first job
    wait_for_database(resolve_urls(settings).database_url)
    stages = frozenset(Stage(name) for name in names)

    gc.disable()  # imports leave no garbage; collecting would take a seventh of their time
    from nightshift.workers.app import run_worker
    from nightshift.workers.do_job import import_stages

    import_stages(stages)
    gc.freeze()  # later collections skip the imported modules
    gc.enable()
    raise SystemExit(run_worker(settings, stages=stages, device=device))
