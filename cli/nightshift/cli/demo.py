"""`nightshift demo`: the whole system on a bundled catalogue, with nothing to set up."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nightshift.cli.echo import echo, echo_json
from nightshift.cli.options import data_dir_option, json_option, read_settings

if TYPE_CHECKING:
    from nightshift.api import Nightshift
    from nightshift.demo.night import Night, Ranked
    from nightshift.schema.params import MethodName

__all__ = ["demo"]


@click.command()
@click.option(
    "--method",
    type=click.Choice(["retllm", "freeret", "indexmllm"]),
    default="retllm",
    show_default=True,
    help="Show this one beside RetLLM; indexmllm finds other images of the same scene.",
)
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("demo-output"),
    show_default=True,
    help="Directory for the images of a few rankings.",
)
@data_dir_option
@json_option
def demo(method: "MethodName", output: Path, data_dir: Path | None, as_json: bool) -> None:
    """Import, index and re-rank a drawn catalogue with tiny bundled models, on real services.

    Starts the embedded stack where none runs and leaves it running. Running it again is safe: it
    reuses what is there.

    \b
    Examples:
      nightshift demo
      nightshift demo --json
      nightshift demo --method freeret
    """
    from nightshift.api import connect
    from nightshift.cli.demo_text import print_night
    from nightshift.cli.embedded_stack import open_stack
    from nightshift.cli.wait import ProgressView
    from nightshift.demo.night import run_night
    from nightshift.schema.distribution import require_extras

    def say(message: str) -> None:
        echo(f"• {message}", err=True)

    require_extras("the demo", "worker", "embedded")
    settings = read_settings(data_dir)
    say("starting Postgres, Redis, Milvus Lite, the dispatcher and a worker")
    stack = open_stack(settings.data_dir)
    stack.up(workers=1)
    with connect(settings=settings) as nightshift:

        def wait(run_id: int) -> None:
            with ProgressView(quiet=as_json) as view:
                nightshift.wait(run_id, progress=view.show).require_done()

        night = run_night(nightshift, settings.data_dir / "demo", method=method, wait=wait, say=say)
        images = _draw(nightshift, night, output)
        if as_json:
            echo_json(_facts(night), indent=None)
        else:
            print_night(nightshift.database, night, images, data_dir)


def _draw(nightshift: "Nightshift", night: "Night", output: Path) -> list[Path]:
    from nightshift.cli.demo_text import QUERIES_SHOWN

    output.mkdir(parents=True, exist_ok=True)
    images = []
    for ranked in _all(night):
        name = ranked.direction.name
        if ranked.method != "retllm":
            name += f"-{ranked.method}"
        for suffix in ("html", "png"):
            path = output / f"{name}.{suffix}"
            nightshift.report(ranked.run_id, path, n_queries=QUERIES_SHOWN)
            images.append(path)
    return images


def _facts(night: "Night") -> dict[str, Any]:
    """The object that `--json` prints."""
    from nightshift.cli.demo_text import measures

    forward, backward = night.text_to_image, night.image_to_text
    return {
        "items": night.items,
        "queries": forward.queries,
        "pairs": forward.pairs,
        "failed": night.failed,
        **measures(forward),
        "image_to_text": {
            "queries": backward.queries,
            "pairs": backward.pairs,
            **measures(backward),
        },
        "enhancement": {
            "gamma": night.enhanced.gamma,
            "firing_share": round(night.enhanced.share, 4),
            "published_firing_share": round(night.enhanced.share_before, 4),
            **measures(night.enhanced.ranked),
            "run_id": night.enhanced.ranked.run_id,
        },
        "others": [
            {
                "method": ranked.method,
                "direction": ranked.direction.name,
                "queries": ranked.queries,
                "pairs": ranked.pairs,
                **measures(ranked),
                "run_id": ranked.run_id,
            }
            for ranked in night.others
        ],
        "seconds": {
            "import": round(night.import_s, 2),
            "index": round(night.index_s, 2),
            "rerank": round(night.rerank_s, 2),
        },
        "run_id": forward.run_id,
    }


def _all(night: "Night") -> list["Ranked"]:
    return [night.text_to_image, night.image_to_text, *night.others]
