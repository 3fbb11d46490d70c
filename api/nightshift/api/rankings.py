"""The rankings of a run as rows, as an Arrow table or as a pandas data frame."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nightshift.results.rankings import open_rankings
from nightshift.schema.distribution import require_extras
from nightshift.stores.postgres.database import Database
from nightshift.stores.results.rankings import RankedItem

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

__all__ = ["Rankings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rankings:
    """The rankings of a run, in the order of its queries, best item first.

    Iterating reads the rows from Postgres as they are needed, again each time: a run that goes on
    has more of them later. Memory stays flat, whatever their number.

    Example:
        >>> for row in ns.results(7, query="q12", limit=3):
        ...     print(row.final_rank, row.item, row.probability)
        1 shoe-17 0.93
        2 shoe-4 0.88
        3 boot-2 0.41
    """

    database: Database
    run_id: int
    query: str | None = None
    limit: int | None = None

    def __iter__(self) -> Iterator[RankedItem]:
        with open_rankings(self.database, self.run_id, query=self.query, limit=self.limit) as (
            _,
            rows,
        ):
            yield from rows

    def pages(self) -> Iterator[Sequence[Sequence[Any]]]:
        """Pages of rows, each with the values of `RankedItem` in the order of its fields.

        Faster than row by row, for programs that take values.
        """
        with open_rankings(self.database, self.run_id, query=self.query, limit=self.limit) as (
            _,
            rows,
        ):
            yield from rows.pages()

    def to_list(self) -> list[RankedItem]:
        """All rows at the same time.

        Example:
            >>> ns.results(7).to_list()[0].decided_by
            <DecidedBy.SCORE: 'score'>
        """
        return list(self)

    def to_arrow(self) -> "pa.Table":
        """A `pyarrow.Table`; its columns are those of `nightshift results --format parquet`.

        Example:
            >>> ns.results(7).to_arrow().num_rows
            40
        """
        from nightshift.results.export import to_arrow

        return to_arrow(self)

    def to_pandas(self) -> "pd.DataFrame":
        """A `pandas.DataFrame` with the columns of `to_arrow`; needs the extra `pandas`.

        Example:
            >>> ns.results(7).to_pandas().groupby("query").size().max()
            5

        Raises:
            ConfigurationError: pandas is not installed.
        """
        require_extras("a pandas data frame", "pandas")
        return self.to_arrow().to_pandas()
