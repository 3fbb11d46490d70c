"""`nightshift verify`: the receipt of a run."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from nightshift.cli.options import data_dir_option, json_option, read_settings

if TYPE_CHECKING:
    from nightshift.results.verify import Receipt

__all__ = ["verify"]


@click.command()
@click.argument("run_id", type=int, metavar="RUN")
@data_dir_option
@json_option
def verify(run_id: int, data_dir: Path | None, as_json: bool) -> None:
    """Prove that no result of RUN is missing: expected = done + failed with a reason + skipped.

    Skipped units are those that a cancelled run did not reach. Exits with 0 only if the run is done
    and its counts add up.

    Two runs with the same digest have the same item at each rank of each query, and the same pairs
    without a score. The digest does not include scores, because their last digits depend on how the
    work was divided into jobs. Compare the mean margins instead; they differ by less than 0.0001.

    \b
    Examples:
      nightshift verify 2
      nightshift verify 2 --json
    """
    from nightshift.api import connect
    from nightshift.cli.echo import echo_json

    with connect(settings=read_settings(data_dir)) as nightshift:
        receipt = nightshift.verify(run_id)
    if as_json:
        balances = {
            balance.unit: {
                "expected": balance.expected,
                "done": balance.done,
                "failed": balance.failed,
                "skipped": balance.skipped,
                "missing": balance.missing,
            }
            for balance in receipt.balances
        }
        facts: dict[str, object] = {
            "run_id": receipt.run_id,
            "state": receipt.state.value,
            **balances,
        }
        facts |= {
            "complete": receipt.complete,
            "digest": receipt.digest,
            "mean_margin": receipt.mean_margin,
            "coverage": receipt.coverage,
            "not_indexed": receipt.not_indexed,
        }
        echo_json(facts, indent=None)
    else:
        _print(receipt)
    if not receipt.complete:
        raise SystemExit(1)


def _print(receipt: "Receipt") -> None:
    """Print the balances of a run, its gaps and what its results are worth."""
    from nightshift.cli.echo import echo

    for balance in receipt.balances:
        echo(
            f"{balance.unit:<8} {balance.expected:>9} expected = {balance.done} done "
            f"+ {balance.failed} failed + {balance.skipped} skipped + {balance.missing} missing"
        )
    for gap in receipt.gaps:
        echo(f"missing  {gap.unit}: {gap.subject_id}")
    if receipt.coverage is not None and not receipt.coverage.complete:
        echo(f"covered  {receipt.coverage}")
    if receipt.not_indexed:
        echo(
            f"notice   {receipt.not_indexed:,} items were not in the index as the run's "
            "revision has them, so no query could find them"
        )
    echo(f"digest   {receipt.digest}")
    if receipt.mean_margin is not None:
        echo(f"margins  {receipt.mean_margin:.4f} on average")
    echo(f"run {receipt.run_id} is {'complete' if receipt.complete else 'NOT complete'}")
