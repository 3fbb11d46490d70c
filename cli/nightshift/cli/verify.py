"""`nightshift verify`: the receipt of a run."""

import json
from pathlib import Path

import click

from nightshift.cli.options import data_dir_option, json_option, read_settings

__all__ = ["verify"]


@click.command()
@click.argument("run_id", type=int, metavar="RUN")
@data_dir_option
@json_option
def verify(run_id: int, data_dir: Path | None, as_json: bool) -> None:
    """Prove that RUN lost nothing: expected = done + failed with a reason + skipped.

    Skipped is what a cancelled run had not done yet. Exits with 0 only where the run is done and
    its books balance. The digest is over the result rows in their order: two runs with the same
    digest have the same results.

    \b
    Examples:
      nightshift verify 2
      nightshift verify 2 --json
    """
    from nightshift.cli.services import open_database
    from nightshift.query import verify as receipts

    with open_database(read_settings(data_dir)) as database:
        receipt = receipts.verify(database, run_id)
    if as_json:
        tallies = {
            tally.unit: {
                "expected": tally.expected,
                "done": tally.done,
                "failed": tally.failed,
                "skipped": tally.skipped,
                "missing": tally.missing,
            }
            for tally in receipt.tallies
        }
        facts = {"run_id": receipt.run_id, "state": receipt.state.value, **tallies}
        click.echo(json.dumps({**facts, "complete": receipt.complete, "digest": receipt.digest}))
    else:
        for tally in receipt.tallies:
            click.echo(
                f"{tally.unit:<8} {tally.expected:>9} expected = {tally.done} done "
                f"+ {tally.failed} failed + {tally.skipped} skipped + {tally.missing} missing"
            )
        for gap in receipt.gaps:
            click.echo(f"missing  {gap.unit}: {gap.subject_id}")
        click.echo(f"digest   {receipt.digest}")
        click.echo(f"run {receipt.run_id} is {'complete' if receipt.complete else 'NOT complete'}")
    if not receipt.complete:
        raise SystemExit(1)
