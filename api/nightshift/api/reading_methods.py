"""The methods of a client that follow runs and read their results."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from nightshift.api.connection import HasRunId, ServiceConnection, run_id_of

if TYPE_CHECKING:
    from nightshift.api.rankings import Rankings
    from nightshift.api.waiting import RunEnd
    from nightshift.results.calibration import Directionality, Threshold
    from nightshift.results.coverage import Coverage
    from nightshift.results.evaluate import RunEvaluation
    from nightshift.results.runs import RunDetails, RunProgress
    from nightshift.scoring.calibration import CalibrationStats
    from nightshift.stores.failures import FailureRow
    from nightshift.stores.results.answers import StoredAnswer

__all__ = ["ReadingMethods"]


class ReadingMethods(ServiceConnection):
    """Progress, rankings, measures, reports and answers."""

    def wait(
        self,
        run: int | HasRunId,
        *,
        timeout_s: float | None = None,
        progress: "Callable[[RunProgress], None] | None" = None,
    ) -> "RunEnd":
        """Block until a run is done, failed or cancelled.

        Args:
            run: The run.
            timeout_s: Wait no longer than this; without it, as long as the run takes.
            progress: Called about three times a second with the stages of the run.

        Returns:
            The state of the run, and reason → count of what failed in it.

        Example:
            >>> end = ns.wait(run)
            >>> end.state, dict(end.reasons)
            (<RunState.DONE: 'done'>, {'image_unreadable': 2})

        Raises:
            NotFoundError: There is no such run.
            WaitTimeoutError: The time is over.
            ServiceUnavailableError: Postgres stays away; the run goes on once it is back.
        """
        from nightshift.api.waiting import wait_for_end

        return wait_for_end(
            self.database, run_id_of(run), on_progress=progress, timeout_s=timeout_s
        )

    def run(self, run: int | HasRunId) -> "RunDetails":
        """Everything that explains a run: progress, failures by reason, models, parameters.

        Example:
            >>> ns.run(8).progress.run.state
            <RunState.RUNNING: 'running'>

        Raises:
            NotFoundError: There is no such run.
        """
        from nightshift.results.runs import show_run

        return show_run(self.database, run_id_of(run))

    def runs(self, limit: int = 20) -> "list[RunProgress]":
        """The newest runs, newest first, and how far each is.

        Example:
            >>> [(row.run.id, row.run.kind.value, row.run.state.value) for row in ns.runs(2)]
            [(8, 'rerank', 'running'), (7, 'index', 'done')]
        """
        from nightshift.results.runs import list_progress

        return list_progress(self.database, limit)

    def failures(self, run: int | HasRunId, limit: int | None = None) -> "list[FailureRow]":
        """Failures of a run and of reading its queries, oldest first, with reason and remedy.

        Example:
            >>> [(row.subject_id, row.reason) for row in ns.failures(8)]
            [('shoe-9', 'image_unreadable')]

        Raises:
            NotFoundError: There is no such run.
        """
        from nightshift.results.runs import list_failures

        return list_failures(self.database, run_id_of(run), limit)

    def results(
        self, run: int | HasRunId, *, query: str | None = None, limit: int | None = None
    ) -> "Rankings":
        """The rankings of a run: rows to iterate over, an Arrow table or a pandas data frame.

        Args:
            run: A re-ranking run.
            query: Only this query, by its id in the file of queries.
            limit: At most this number of rows.

        Example:
            >>> next(iter(ns.results(8, query="q12"))).item
            'shoe-17'
            >>> ns.results(8).to_pandas()[["query", "item", "final_rank"]]

        Raises:
            NotFoundError: There is no such run or no such query in it; raised when rows are read,
                as is the next.
            ConflictError: The run ranks nothing.
        """
        from nightshift.api.rankings import Rankings

        return Rankings(database=self.database, run_id=run_id_of(run), query=query, limit=limit)

    def evaluate(self, run: int | HasRunId) -> "RunEvaluation":
        """Compare the coarse and the fine order of a run with the judgements of its queries.

        Returns:
            Recall, success, MRR, nDCG and MAP of both orders, as means over the judged queries.

        Example:
            >>> measured = ns.evaluate(8)
            >>> measured.coarse["recall@1"], measured.fine["recall@1"]
            (0.41, 0.78)

        Raises:
            NotFoundError: There is no such run, or its queries have no judgements.
            ConflictError: The run ranks nothing, or no judged query is ranked yet.
        """
        from nightshift.results.evaluate import evaluate

        return evaluate(self.database, run_id_of(run))

    def calibration(self, run: int | HasRunId) -> "CalibrationStats":
        """Statistics of the scores of a run: histograms, ties, the enhancement, calibration error.

        Example:
            >>> stats = ns.calibration(8)
            >>> stats.n_scored, stats.n_tied, stats.expected_calibration_error()
            (2500, 31, 0.08)

        Raises:
            NotFoundError: There is no such run.
            ConflictError: The run ranks nothing.
        """
        from nightshift.results.calibration import calibration

        return calibration(self.database, run_id_of(run))

    def directionality(self, run: int | HasRunId) -> "Directionality | None":
        """The margin shifts of the enhancement on relevant and on other pairs.

        Returns:
            None without judged pairs of both kinds that were also scored without the enhancement.

        Example:
            >>> ns.directionality(8).difference
            0.21
        """
        from nightshift.results.calibration import directionality

        return directionality(self.database, run_id_of(run))

    def threshold(self, run: int | HasRunId, share: float) -> "Threshold":
        """The gamma with which the visual enhancement fires on a share of a run's pairs.

        Args:
            run: A run in which the enhancement measured the pairs.
            share: Above 0, up to 1.

        Example:
            >>> ns.threshold(8, 0.2).gamma
            0.5817

        Raises:
            NotFoundError: There is no such run.
            ConflictError: It measured no pair, or fired on more pairs than this share.
        """
        from nightshift.results.calibration import threshold

        return threshold(self.database, run_id_of(run), share)

    def coverage(self, run: int | HasRunId) -> "Coverage":
        """Count the queries of a run that have a ranking.

        Example:
            >>> str(ns.coverage(8))
            '40 of 40 queries have a ranking'

        Raises:
            NotFoundError: There is no such run.
            ConflictError: The run ranks nothing.
        """
        from nightshift.results.coverage import coverage

        return coverage(self.database, run_id_of(run))

    def report(self, run: int | HasRunId, path: Path | str, *, n_queries: int = 6) -> Path:
        """Write a page or an image that shows a few queries with both rankings side by side.

        Args:
            run: A re-ranking run that has rankings.
            path: A `.html` or a `.png` file.
            n_queries: Queries to show.

        Returns:
            The path of the file.

        Example:
            >>> ns.report(8, "run8.html")
            PosixPath('run8.html')

        Raises:
            NotFoundError: There is no such run.
            ConfigurationError: The path ends otherwise.
            ConflictError: The run has ranked nothing yet.
        """
        from nightshift.results.report import write_report

        path = Path(path)
        write_report(self.database, run_id_of(run), path, n_queries=n_queries)
        return path

    def answers(self, run: int | HasRunId, query: str | None = None) -> "list[StoredAnswer]":
        """The answers to the queries of a run, in the order of its queries.

        Example:
            >>> ns.answers(8, "q12")[0].text
            'The red boot in the second row.'

        Raises:
            NotFoundError: There is no such run.
            ConflictError: The run ranks nothing.
        """
        from nightshift.stores.results.answers import list_answers
        from nightshift.stores.results.rankings import require_rerank

        run_id = run_id_of(run)
        with self.database.begin() as connection:
            require_rerank(connection, run_id)
            return list_answers(connection, run_id, query)

    def count_unanswered(self, run: int | HasRunId, query: str | None = None) -> int:
        """The number of ranked queries that have no answer and that no job is about to answer.

        Example:
            >>> ns.count_unanswered(8)
            0
        """
        from nightshift.stores.results.answers import unanswered

        with self.database.begin() as connection:
            return len(unanswered(connection, run_id_of(run), query))
