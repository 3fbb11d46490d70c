"""Runs of as many pairs as a measurement wants, most of them with scores of earlier runs."""

from dataclasses import dataclass

from sqlalchemy import text

from nightshift.schema.params import RerankParams
from nightshift.schema.plans import RerankPlan
from nightshift.schema.states import Stage
from nightshift.stores.ledger import runs
from nightshift.stores.ledger.new_runs import create_rerank_run
from nightshift.stores.models import upsert_model
from nightshift.stores.postgres.database import Database
from nightshift.stores.results.writes import CandidateRow, write_candidates

__all__ = ["PlannedPairs"]

_TOP_K = 20
_SCORER = "1" * 16
#: Queries of one search job.
_QUERIES_OF_A_JOB = 500


@dataclass(slots=True, kw_only=True)
class PlannedPairs:
    """A catalogue of texts, queries, and runs over all of them with the same candidates.

    Args:
        database: A migrated database.
        pairs: Of each run, a multiple of 20.
    """

    database: Database
    pairs: int
    _first_run: int = 0

    def begin(self, known: float) -> None:
        """Make contents and queries, and a first run with scores of a share of its pairs."""
        n_queries = self.pairs // _TOP_K
        with self.database.begin() as connection:
            for kind, fingerprint in (("embedder", "0" * 16), ("scorer", _SCORER)):
                upsert_model(
                    connection,
                    fingerprint=fingerprint,
                    kind=kind,
                    spec=f"hf:benchmark-{kind}",
                    card={},
                    package_version="0",
                )
            for statement in _SETTING:
                connection.execute(statement, {"queries": n_queries, "items": self._n_items})
        self._first_run = self.new_run()
        self.search(self._first_run)
        with self.database.begin() as connection:
            run = runs.get_run(connection, self._first_run)
            connection.execute(
                _SCORE,
                {
                    "run": run.id,
                    "scorer": run.scorer_number,  # type: ignore[union-attr]
                    "month": run.score_month,  # type: ignore[union-attr]
                    "fingerprint": _SCORER,
                    "known": known,
                },
            )
        self._vacuum()

    @property
    def _n_items(self) -> int:
        return max(1000, self.pairs // 100)

    def add_earlier_runs(self, number: int) -> None:
        """Add runs with the candidates of the first one, and their scores."""
        for _ in range(number):
            run_id = self.new_run()
            with self.database.begin() as connection:
                connection.execute(_COPY_CANDIDATES, {"run": run_id, "first": self._first_run})
                connection.execute(_END_RUN, {"run": run_id})
        self._vacuum()

    def forget_scores(self) -> None:
        """Delete all scores: every pair is new."""
        with self.database.begin() as connection:
            connection.execute(_DELETE_SCORES)
        self._vacuum()

    def new_run(self) -> int:
        """A run that is about to search; its number."""
        with self.database.begin() as connection:
            return create_rerank_run(
                connection,
                stage=Stage.SEARCH,
                catalog_id=1,
                revision=1,
                index_id=1,
                query_set_id=1,
                scorer="hf:benchmark-scorer",
                scorer_fingerprint=_SCORER,
                params=RerankParams(query_parts="text", item_parts="text", top_k=_TOP_K),
                plan=RerankPlan(queries=self.pairs // _TOP_K),
            )

    def search(self, run_id: int) -> None:
        """Write the candidates of all queries, in the transactions of search jobs."""
        n_queries, n_items = self.pairs // _TOP_K, self._n_items
        for start in range(1, n_queries + 1, _QUERIES_OF_A_JOB):
            rows = [
                CandidateRow(
                    query_id=query,
                    item_id=(item := 1 + (query * 7 + rank * 13) % n_items),
                    content_id=item,
                    coarse_rank=rank,
                    coarse_score=1 - rank / 100,
                )
                for query in range(start, min(start + _QUERIES_OF_A_JOB, n_queries + 1))
                for rank in range(1, _TOP_K + 1)
            ]
            with self.database.begin() as connection:
                run = runs.get_run(connection, run_id)
                write_candidates(connection, run, rows)  # type: ignore[arg-type]

    def _vacuum(self) -> None:
        engine = self.database.engine.execution_options(isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(_VACUUM)


_SETTING = (
    # The catalogue, its only revision, its index and the query set.
    text("INSERT INTO catalog (name) VALUES ('benchmark')"),
    text(
        "INSERT INTO revision (catalog_id, number, items, added, changed, removed) "
        "VALUES (1, 1, :items, :items, 0, 0)"
    ),
    text(
        'INSERT INTO "index" (catalog_id, name, version, embedder, embedder_fingerprint, parts, '
        "dim, collection, state) VALUES (1, 'default', 1, 'hf:benchmark-embedder', "
        "repeat('0', 16), 'text', 4, 'benchmark', 'ready')"
    ),
    text("INSERT INTO query_set (name, content_hash, n_queries) VALUES ('q', '\\x00', :queries)"),
    # Contents, items and queries with ids from 1.
    text("""
        INSERT INTO content (digest, parts, text_hash, content_hash)
        SELECT h, jsonb_build_array(jsonb_build_object('kind', 'text', 'text', 'item ' || n)), h, h
        FROM generate_series(1, :items) AS n,
            LATERAL (SELECT sha256(convert_to('item ' || n, 'UTF8')) AS h) AS hashed ORDER BY n
    """),
    text("""
        INSERT INTO item (catalog_id, external_id)
        SELECT 1, 'item-' || lpad(n::text, 9, '0') FROM generate_series(1, :items) AS n ORDER BY n
    """),
    text("""
        INSERT INTO item_version (item_id, first_revision, content_id)
        SELECT n, 1, n FROM generate_series(1, :items) AS n
    """),
    text("""
        INSERT INTO query (query_set_id, external_id, parts, text_hash, content_hash)
        SELECT 1, 'query-' || lpad(n::text, 9, '0'),
            jsonb_build_array(jsonb_build_object('kind', 'text', 'text', 'query ' || n)), h, h
        FROM generate_series(1, :queries) AS n,
            LATERAL (SELECT sha256(convert_to('query ' || n, 'UTF8')) AS h) AS hashed ORDER BY n
    """),
)

# Scores a share of a run's candidates, the same ones in every run.
_SCORE = text("""
    WITH scored AS (
        INSERT INTO score (scorer, month, run_id, pair_key, margin, logit_positive,
            logit_negative, logsumexp, entropy, fired)
        SELECT :scorer, CAST(:month AS date), :run, sha256(convert_to(:fingerprint, 'UTF8')
            || q.text_hash || content.text_hash), 1, 1, 0, 2, 0.1, false
        FROM candidate c JOIN query q ON q.id = c.query_id
        JOIN content ON content.id = c.content_id
        WHERE c.run_id = :run AND hashint8(c.query_id * 31 + c.item_id) % 10000 / 10000.0 < :known
            AND hashint8(c.query_id * 31 + c.item_id) % 10000 / 10000.0 > -:known
        RETURNING id
    )
    SELECT count(*) FROM scored
""")

# Gives a run the candidates of the first one.
_COPY_CANDIDATES = text("""
    INSERT INTO candidate (run_id, query_id, item_id, content_id, coarse_rank, coarse_score,
        score_id)
    SELECT :run, query_id, item_id, content_id, coarse_rank, coarse_score, score_id
    FROM candidate WHERE run_id = :first
""")

# Ends a run.
_END_RUN = text("""
    UPDATE run SET state = 'done', stage = 'rank', finished_at = now() WHERE id = :run
""")

# Deletes all scores.
_DELETE_SCORES = text("TRUNCATE score")

# Lets Postgres see what was written.
_VACUUM = text("VACUUM ANALYZE")
