"""The methods of a client that read catalogues, and import queries."""

import sys
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from nightshift.api.connection import ServiceConnection

if TYPE_CHECKING:
    from nightshift.producers.query_import import QuerySetSummary
    from nightshift.producers.row_checks import Verify
    from nightshift.producers.sources import FieldNames
    from nightshift.stores.catalog.catalog_reports import CatalogFacts, ImportFacts
    from nightshift.stores.catalog.import_failures import ImportFailure
    from nightshift.stores.catalog.revision_reports import RevisionDiff, RevisionFacts

__all__ = ["CatalogDetails", "CatalogMethods"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogDetails:
    """The counts of a catalogue, and its last imports, newest first."""

    facts: "CatalogFacts"
    imports: "tuple[ImportFacts, ...]"


class CatalogMethods(ServiceConnection):
    """Catalogues, their imports, and query sets."""

    def import_queries(
        self,
        source: str,
        *,
        name: str | None = None,
        qrels: str | None = None,
        mapping: "FieldNames | None" = None,
        verify: "Verify" = "changed",
    ) -> "QuerySetSummary":
        """Read a file of queries into a query set; `rerank` does it by itself.

        Args:
            source: JSONL, CSV, Parquet, a folder of images, or an fsspec URL of one.
            name: Name of the query set; the file's without extensions by default.
            qrels: File of relevance judgements (TREC, BEIR or JSONL).
            mapping: Names of fields that are not called `id`, `text`, `image` or `parts`.
            verify: The local images to decode now, as for `import_catalog`.

        Returns:
            Number of the query set, count of its queries, and reason → rows that failed.

        Example:
            >>> ns.import_queries("queries.jsonl", qrels="qrels.txt").n_queries
            500

        Raises:
            NotFoundError: There is no such file.
            ConfigurationError: Its format is not known.
            InputError: No query of the file can be used.
        """
        from nightshift.producers.query_import import import_queries
        from nightshift.stores.files.blobs import BlobStore

        return import_queries(
            self.database,
            source,
            name=name,
            qrels=qrels,
            mapping=mapping,
            verify=verify,
            blobs=BlobStore(self.settings.data_dir / "blobs"),
            image_roots=self.settings.image_roots,
        )

    def catalogs(self) -> "list[CatalogFacts]":
        """All catalogues, with the counts of their items and the names of their indexes.

        Example:
            >>> [(row.name, row.live, row.indexes) for row in ns.catalogs()]
            [('shop', 2048, ('default',))]
        """
        from nightshift.stores.catalog.catalog_reports import list_catalogs

        with self.database.begin() as connection:
            return list_catalogs(connection)

    def catalog(self, name: str) -> CatalogDetails:
        """The counts of one catalogue, and its last ten imports.

        Example:
            >>> shop = ns.catalog("shop")
            >>> shop.facts.live, shop.imports[0].accepted
            (2048, 2048)

        Raises:
            NotFoundError: There is no such catalogue.
        """
        from nightshift.stores.catalog.catalog_reports import imports_of, list_catalogs

        with self.database.begin() as connection:
            (facts,) = list_catalogs(connection, name)
            return CatalogDetails(facts=facts, imports=tuple(imports_of(connection, name)))

    def catalog_history(self, name: str, *, limit: int | None = None) -> "list[RevisionFacts]":
        """The revisions of a catalogue, the newest first.

        Args:
            name: The catalogue.
            limit: At most this number of revisions.

        Example:
            >>> [(row.number, row.added, row.removed) for row in ns.catalog_history("shop")]
            [(2, 20, 3), (1, 2048, 0)]

        Raises:
            NotFoundError: There is no such catalogue.
        """
        from nightshift.stores.catalog.revision_reports import history

        with self.database.begin() as connection:
            return history(connection, name, limit=limit)

    def catalog_diff(
        self, name: str, older: int, newer: int, *, limit: int | None = None
    ) -> "RevisionDiff":
        """The items that were added, changed and removed between two revisions of a catalogue.

        Args:
            name: The catalogue.
            older: Number of a revision.
            newer: Number of the revision that it is compared with; an earlier one is fine.
            limit: At most this number of ids of each kind; the counts are always complete.

        Example:
            >>> ns.catalog_diff("shop", 1, 2).removed.count
            3

        Raises:
            NotFoundError: There is no such catalogue or revision.
        """
        from nightshift.stores.catalog.revision_reports import diff

        with self.database.begin() as connection:
            return diff(connection, name, older, newer, limit=limit)

    def roll_back_catalog(self, name: str, revision: int) -> "RevisionFacts":
        """Give a catalogue the state of an earlier revision, as a new revision.

        Returns:
            The new revision.

        Example:
            >>> ns.roll_back_catalog("shop", 1).number
            3

        Raises:
            NotFoundError: There is no such catalogue or revision.
            ConflictError: It is the newest revision.
        """
        from nightshift.stores.catalog.rollback import rollback

        with self.database.begin() as connection:
            return rollback(connection, name, revision)

    def import_failures(
        self,
        name: str,
        *,
        import_id: int | None = None,
        reason: str | None = None,
        limit: int | None = None,
    ) -> "list[ImportFailure]":
        """Rows that an import into a catalogue refused, in the order of the source.

        Args:
            name: The catalogue.
            import_id: Number of the import; the last by default.
            reason: Only this reason, such as `image_unreadable`.
            limit: At most this number of rows.

        Example:
            >>> [(row.subject, row.reason) for row in ns.import_failures("shop")]
            [('shoe-9', 'image_unreadable')]

        Raises:
            NotFoundError: There is no such catalogue or import.
        """
        from nightshift.stores.catalog.catalog_reports import import_of
        from nightshift.stores.catalog.import_failures import failures_of_import

        with self.database.begin() as connection:
            number = import_of(connection, name, import_id).id
            rows = failures_of_import(connection, number, reason=reason)
            return list(islice(rows, None if limit is None else min(limit, sys.maxsize)))
