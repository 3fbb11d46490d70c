"""The methods of a client that free space, and say what takes it."""

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING

from nightshift.api.connection import ServiceConnection
from nightshift.api.services import open_vectors
from nightshift.schema.errors import RequestError

if TYPE_CHECKING:
    from nightshift.results.disk import DiskUsage
    from nightshift.stores.catalog.revision_pruning import RevisionPruning
    from nightshift.stores.index.index_pruning import IndexPruning
    from nightshift.stores.ledger.run_pruning import RunPruning
    from nightshift.stores.results.score_pruning import ScorePruning

__all__ = ["RetentionMethods"]


class RetentionMethods(ServiceConnection):
    """Removal of old runs, indexes and files."""

    def prune_runs(
        self,
        *,
        keep: int | None = None,
        older_than: timedelta | None = None,
        catalog: str | None = None,
        dry_run: bool = False,
        progress: "Callable[[int, int], None] | None" = None,
    ) -> "RunPruning":
        """Remove ended runs with their jobs, candidates and rankings.

        Args:
            keep: Runs stay that fewer than so many newer done runs of the same catalogue, name of
                the query set and method follow; 0 keeps none.
            older_than: Runs stay that ended within this time. Without `keep`, the last done run of
                each query set stays too. With both, a run goes if both let it go.
            catalog: Only runs of this catalogue.
            dry_run: Only report what would go.
            progress: Called with the numbers of runs that were tried and of all.

        Returns:
            The runs that went, with their bytes, and the reasons why others stay.

        Example:
            >>> report = ns.prune_runs(keep=7, dry_run=True)
            >>> [run.id for run in report.runs], report.bytes
            ([3, 4], 81920)

        Raises:
            RequestError: Neither `keep` nor `older_than` is given, or one is negative.
            NotFoundError: There is no such catalogue.
        """
        from nightshift.stores.ledger.run_pruning import prune_runs

        if keep is None and older_than is None:
            raise RequestError(
                "which runs should stay is not said", "", (("keep", "7"), ("older_than", "30d"))
            )
        if keep is not None and keep < 0:
            raise RequestError("it must not be negative", "keep")
        if older_than is not None and older_than < timedelta():
            raise RequestError("it must not be negative", "older_than")
        return prune_runs(
            self.database,
            keep=keep,
            older_than=older_than,
            catalog=catalog,
            dry_run=dry_run,
            progress=progress or _ignore,
        )

    def prune_catalog(
        self,
        name: str,
        *,
        keep: int,
        dry_run: bool = False,
        progress: "Callable[[int, int], None] | None" = None,
    ) -> "RevisionPruning":
        """Remove old revisions of a catalogue, and items and contents that only they had.

        Revisions that a run reads stay, and those that were replaced within the last hour.

        Args:
            name: The catalogue.
            keep: So many of the newest revisions stay; at least 1.
            dry_run: Only report what would go.
            progress: Called with the numbers of steps that are done and of all.

        Returns:
            The revisions that went and stay, and counts of the rows that only the former had.

        Example:
            >>> ns.prune_catalog("shop", keep=10).revisions
            [1, 2, 3]

        Raises:
            RequestError: `keep` is less than 1.
            NotFoundError: There is no such catalogue.
        """
        from nightshift.stores.catalog.revision_pruning import prune_revisions

        if keep < 1:
            raise RequestError("the newest revision stays", "keep", (("keep", "1"),))
        return prune_revisions(
            self.database, name, keep=keep, dry_run=dry_run, progress=progress or _ignore
        )

    def prune_indexes(
        self,
        *,
        keep: int = 0,
        catalog: str | None = None,
        dry_run: bool = False,
        progress: "Callable[[int, int], None] | None" = None,
    ) -> "IndexPruning":
        """Remove retired index versions that no re-ranking searched, with their vectors.

        Args:
            keep: Of each index, so many of the newest retired versions stay.
            catalog: Only indexes of this catalogue.
            dry_run: Only report what would go.
            progress: Called with the numbers of versions that were tried and of all.

        Returns:
            The versions that went, with their bytes, and the reasons why others stay.

        Example:
            >>> [(row.index, row.version) for row in ns.prune_indexes().indexes]
            [('default', 1)]

        Raises:
            RequestError: `keep` is negative.
            NotFoundError: There is no such catalogue.
            ServiceUnavailableError: Milvus cannot be reached.
        """
        from nightshift.stores.index.index_pruning import prune_indexes

        if keep < 0:
            raise RequestError("it must not be negative", "keep")
        with open_vectors(self.settings) as vectors:
            return prune_indexes(
                self.database,
                vectors,
                keep=keep,
                catalog=catalog,
                dry_run=dry_run,
                progress=progress or _ignore,
            )

    def prune_scores(
        self, *, dry_run: bool = False, progress: "Callable[[int, int], None] | None" = None
    ) -> "ScorePruning":
        """Remove the scores that no run uses; the space is freed.

        Scorers of runs that have not ended are left out.

        Args:
            dry_run: Only report what would go.
            progress: Called with the numbers of partitions that were examined and of all.

        Returns:
            By scorer and month the scores that went, and the reasons why others stay.

        Example:
            >>> [(row.month, row.unused, row.kept) for row in ns.prune_scores().scores]
            [(datetime.date(2026, 11, 1), 12000, 480)]
        """
        from nightshift.stores.results.score_pruning import prune_scores

        return prune_scores(self.database, dry_run=dry_run, progress=progress or _ignore)

    def disk(self) -> "DiskUsage":
        """Sizes in Postgres, in Milvus and in the data directory, and the commands that free space.

        Example:
            >>> {part.what: part.bytes for part in ns.disk().parts if part.place == "milvus"}
            {'vectors': 10485760}
        """
        from nightshift.results.disk import disk_usage

        return disk_usage(
            self.database,
            self.settings.data_dir,
            embedded_milvus=self.settings.milvus_uri is None,
        )


def _ignore(_done: int, _of: int) -> None:
    """Report no progress."""
