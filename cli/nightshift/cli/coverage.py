"""The warning and the exit code of a command that shows an incomplete re-ranking run."""

from nightshift.cli.echo import echo
from nightshift.stores.results.coverage import Coverage

__all__ = ["exit_unless_covered", "warn_unless_covered"]


def warn_unless_covered(coverage: Coverage) -> None:
    """Print to stderr how many queries are ranked, unless the run is done and all of them are."""
    if coverage.complete and coverage.state == "done":
        return
    so_far = " these are the rankings so far;" if coverage.state in ("running", "paused") else ""
    echo(f"run {coverage.run_id}:{so_far} {coverage}", err=True)


def exit_unless_covered(coverage: Coverage) -> None:
    """Exit with 1 if the run failed or was cancelled too early, with 7 if queries failed."""
    if coverage.exit_code:
        raise SystemExit(coverage.exit_code)
