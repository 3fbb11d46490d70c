"""What a command says of a run that has not ranked every query, and its exit code."""

from nightshift.cli.say import echo
from nightshift.stores.results.coverage import Coverage

__all__ = ["leave_covered", "tell_coverage"]


def tell_coverage(covered: Coverage) -> None:
    """Say on stderr how many queries a run has ranked, unless it is done with all of them."""
    if not covered.complete or covered.state != "done":
        so_far = " these are the rankings so far;" if covered.state in ("running", "paused") else ""
        echo(f"run {covered.run_id}:{so_far} {covered}", err=True)


def leave_covered(covered: Coverage) -> None:
    """Exit with 1 where the run failed or was cancelled, with 7 where queries failed."""
    if covered.exit_code:
        raise SystemExit(covered.exit_code)
