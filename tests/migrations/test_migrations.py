"""An empty database becomes what the tables say, and a database behind is distinguished."""

import hashlib
import subprocess
import sys

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import create_engine, text
from sqlalchemy.exc import IntegrityError

import nightshift.schema.count_tables
import nightshift.schema.image_tables
import nightshift.schema.index_tables
import nightshift.schema.item_tables
import nightshift.schema.ledger_tables
import nightshift.schema.load_tables
import nightshift.schema.process_tables
import nightshift.schema.score_tables
import nightshift.schema.token_tables  # noqa: F401 - registers its tables
from nightshift.migrations import _config, current_revision, head_revision, require_current, upgrade
from nightshift.schema.errors import ConflictError, DatabaseBehindError
from nightshift.schema.identity import embedding_key
from nightshift.schema.item_tables import CURRENT
from nightshift.schema.plans import RerankControl
from nightshift.schema.result_tables import PARTITIONED_TABLES
from nightshift.schema.tables import Base
from nightshift.stores.catalog.contents import content_digest
from nightshift.stores.catalog.source_keys import source_key
from nightshift.stores.ledger import runs

VIEWS = {"v_ranking", "v_pair_score", "v_run_progress", "v_calibration", "v_tally"}


def read(url, query, **params):
    engine = create_engine(url)
    with engine.connect() as connection:
        rows = connection.execute(text(query), params).all()
    engine.dispose()
    return rows


def write(url, statements):
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql(statements)
    engine.dispose()


def differences_from_the_tables(url):
    engine = create_engine(url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        differences = compare_metadata(context, Base.metadata)
    engine.dispose()
    return differences


def constraints_and_indexes(url):
    """Definitions by table and name; whether a column may be empty is compared with the tables."""
    rows = read(
        url,
        "SELECT conrelid::regclass::text AS relation, conname AS name, "
        "pg_get_constraintdef(oid) AS definition FROM pg_constraint "
        "WHERE connamespace = 'public'::regnamespace AND conrelid <> 0 AND contype <> 'n' "
        "UNION ALL SELECT tablename, indexname, indexdef FROM pg_indexes "
        "WHERE schemaname = 'public'",
    )
    return {
        (row.relation, row.name): row.definition
        for row in rows
        if not row.relation.startswith("alembic_")
    }


def test_migrations_make_exactly_the_tables_that_the_code_declares(database_url):
    assert differences_from_the_tables(database_url) == []


def test_migrations_make_exactly_the_constraints_and_indexes_that_the_code_declares(
    database_url, empty_database_url
):
    engine = create_engine(empty_database_url)
    Base.metadata.create_all(engine)
    engine.dispose()

    assert constraints_and_indexes(database_url) == constraints_and_indexes(empty_database_url)


def test_downgrading_and_upgrading_again_ends_at_the_same_tables(empty_database_url):
    upgrade(empty_database_url)
    command.downgrade(_config(empty_database_url), "base")
    left = read(
        empty_database_url,
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace",
    )

    upgrade(empty_database_url)

    assert {row.relname for row in left} <= {"alembic_version", "alembic_version_pkc"}
    assert differences_from_the_tables(empty_database_url) == []


#: A run that ended without a date, with rows that later rules refuse.
_BROKEN = """
INSERT INTO catalog (name) VALUES ('things');
INSERT INTO model (fingerprint, kind, spec, card, package_version)
VALUES ('e', 'embedder', 'x', '{}', '1'), ('s', 'scorer', 'x', '{}', '1');
INSERT INTO query_set (name, content_hash) VALUES ('questions', 'c');
INSERT INTO index (catalog_id, name, version, embedder, embedder_fingerprint, parts, dim,
    collection) VALUES (1, 'default', 1, 'x', 'e', 'text', 4, 'c');
INSERT INTO run (kind, state, stage, catalog_id, index_id, query_set_id, method, scorer,
    scorer_fingerprint, params)
VALUES ('rerank', 'done', 'rank', 1, 1, 1, 'retllm', 'x', 's', '{}'),
    ('rerank', 'running', 'rank', 1, 1, 1, 'retllm', 'x', 's', '{}');
SELECT make_run_partitions(1);
INSERT INTO job (run_id, id, stage, queue, payload, n_units, n_failed, state, lease_until)
VALUES (1, 1, 'score', 's', '{}', 2, 3, 'done', NULL),
    (1, 2, 'score', 's', '{}', 2, 0, 'running', now());
INSERT INTO item (catalog_id, external_id, parts, content_hash)
SELECT 1, 'i' || n, '[{"kind": "text", "text": "a cube"}]', 'c' FROM generate_series(1, 3) n;
INSERT INTO candidate VALUES (1, 1, 1, 1, 0.8), (1, 1, 2, 1, 0.9), (1, 1, 3, 3, 0.7);
INSERT INTO pair_score (run_id, query_id, item_id, pair_key, margin, logit_positive,
    logit_negative, logsumexp, entropy, fired, fired_layer)
VALUES (1, 1, 1, 'p', 1, 1, 0, 2, 0.5, true, NULL);
INSERT INTO ranking (run_id, query_id, final_rank, item_id, coarse_rank, coarse_score, probability,
    decided_by, scorer_fingerprint) VALUES (1, 1, 1, 1, 1, 0.9, 0.5, 'coarse', 's');
"""


def test_rows_that_later_rules_refuse_are_mended_or_left_as_they_are(empty_database_url):
    upgrade(empty_database_url, "0010")
    write(empty_database_url, _BROKEN)

    upgrade(empty_database_url)

    def values(query):
        return list(map(tuple, read(empty_database_url, query)))

    assert values("SELECT finished_at IS NOT NULL FROM run ORDER BY id") == [(True,), (False,)]
    assert values("SELECT state, finished_at IS NULL, n_failed FROM job ORDER BY id") == [
        ("done", False, 2),
        ("queued", True, 0),
    ]
    places = values("SELECT item_id, coarse_rank FROM candidate ORDER BY coarse_rank")
    assert places == [(2, 1), (1, 2), (3, 3)]
    assert values("SELECT fired FROM score") == [(False,)]
    assert values("SELECT margin, probability FROM ranking") == [(None, 0.5)]
    assert values("SELECT conname::text FROM pg_constraint WHERE NOT convalidated") == [
        ("ck_ranking_scored",),
        ("ck_ranking_scored",),  # of the run's partition
    ]
    write(empty_database_url, "SELECT make_run_partitions(2)")
    with pytest.raises(IntegrityError, match="ck_ranking_scored"):
        write(
            empty_database_url,
            "INSERT INTO ranking SELECT 2, query_id, final_rank, item_id, coarse_rank, "
            "coarse_score, margin, probability, entropy, fired, fired_layer, tie_group, tie_size, "
            "decided_by, scorer_fingerprint FROM ranking",
        )


def test_imports_of_earlier_releases_know_their_source_where_its_name_is_complete(
    empty_database_url, tmp_path
):
    (tmp_path / "photos").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "photos")
    sources = [
        "photos",
        f"{tmp_path}/link/",
        f"file://{tmp_path}/photos/*.tar",
        "s3a://***@bucket//shards/",
        "https://shop.example/feed?shop=1",
    ]
    upgrade(empty_database_url, "0011")
    write(
        empty_database_url,
        "INSERT INTO catalog (name) VALUES ('things'); "
        + "".join(
            f"INSERT INTO catalog_import (catalog_id, source) VALUES (1, '{source}');"
            for source in sources
        ),
    )

    upgrade(empty_database_url)

    rows = read(empty_database_url, "SELECT source_key FROM catalog_import ORDER BY id")
    assert [row.source_key for row in rows] == [
        None,
        f"{tmp_path}/photos",
        f"{tmp_path}/photos/*.tar",
        "s3://bucket/shards",
        None,
    ]
    assert [source_key(source) for source in sources[1:4]] == [row.source_key for row in rows[1:4]]


#: Plans as the dispatcher of revision 0016 left them.
_PLANS = """
INSERT INTO catalog (name) VALUES ('things');
INSERT INTO model (fingerprint, kind, spec, card, package_version)
VALUES ('e', 'embedder', 'x', '{}', '1'), ('s', 'scorer', 'x', '{}', '1');
INSERT INTO query_set (name, content_hash) VALUES ('questions', 'c');
INSERT INTO index (catalog_id, name, version, embedder, embedder_fingerprint, parts, dim,
    collection) VALUES (1, 'default', 1, 'x', 'e', 'text', 4, 'c');
INSERT INTO run (kind, stage, catalog_id, index_id, query_set_id, method, scorer,
    scorer_fingerprint, params, plan)
VALUES ('rerank', 'search', 1, 1, 1, 'retllm', 'x', 's', '{}',
        '{"queries": 3, "search_again": true, "embed_rounds": 2}'),
    ('rerank', 'score', 1, 1, 1, 'retllm', 'x', 's', '{}',
        '{"queries": 3, "pairs": 9, "equal": 2, "equal_rounds": 1, "tied": 0}'),
    ('rerank', 'embed', 1, 1, 1, 'retllm', 'x', 's', '{}', '{"queries": 3}');
INSERT INTO run (kind, stage, catalog_id, index_id, params, plan)
VALUES ('index', 'embed', 1, 1, '{"parts": "text"}', '{"items": 5, "gone": 1}');
"""


def test_control_state_moves_from_plans_to_columns_and_back(empty_database_url):
    upgrade(empty_database_url, "0016")
    write(empty_database_url, _PLANS)

    upgrade(empty_database_url)

    rows = read(
        empty_database_url,
        "SELECT search_again, embed_rounds, equal_rounds, ties_asked, plan FROM run ORDER BY id",
    )
    assert [tuple(row) for row in rows] == [
        (True, 2, 0, False, {"queries": 3}),
        (False, 0, 1, True, {"queries": 3, "pairs": 9, "equal": 2, "tied": 0}),
        (False, 0, 0, False, {"queries": 3}),
        (False, 0, 0, False, {"items": 5, "gone": 1}),
    ]
    engine = create_engine(empty_database_url)
    with engine.begin() as connection:
        searching, scoring, *_ = reversed(runs.list_runs(connection))
    engine.dispose()
    assert searching.control == RerankControl(search_again=True, embed_rounds=2)
    assert scoring.control == RerankControl(equal_rounds=1, ties_asked=True)
    assert (scoring.plan.pairs, scoring.plan.tied) == (9, 0)

    command.downgrade(_config(empty_database_url), "0016")

    plans = [row.plan for row in read(empty_database_url, "SELECT plan FROM run ORDER BY id")]
    assert plans == [
        {"queries": 3, "search_again": True, "embed_rounds": 2},
        {"queries": 3, "pairs": 9, "equal": 2, "equal_rounds": 1, "tied": 0},
        {"queries": 3},
        {"items": 5, "gone": 1},
    ]


#: Three runs with pairs of two contents: 1 computed both, 2 copied one, and 3 computed it again.
_COPIED_SCORES = """
INSERT INTO catalog (name) VALUES ('things');
INSERT INTO model (fingerprint, kind, spec, card, package_version)
VALUES ('e', 'embedder', 'x', '{}', '1'), ('s', 'scorer', 'x', '{}', '1');
INSERT INTO query_set (name, content_hash) VALUES ('questions', 'c');
INSERT INTO index (catalog_id, name, version, embedder, embedder_fingerprint, parts, dim,
    collection) VALUES (1, 'default', 1, 'x', 'e', 'text', 4, 'c');
INSERT INTO run (kind, stage, catalog_id, index_id, query_set_id, method, scorer,
    scorer_fingerprint, params, created_at)
SELECT 'rerank', 'rank', 1, 1, 1, 'retllm', 'x', 's', '{}', day
FROM unnest(ARRAY[timestamptz '2026-09-30 23:30+00', '2026-10-02 12:00+00', '2026-11-02 12:00+00'])
    AS day;
SELECT make_run_partitions(id) FROM run;
INSERT INTO candidate (run_id, query_id, item_id, coarse_rank, coarse_score)
VALUES (1, 1, 1, 1, 0.9), (1, 1, 2, 2, 0.8), (1, 1, 3, 3, 0.7), (2, 1, 1, 1, 0.9),
    (3, 1, 1, 1, 0.9);
INSERT INTO pair_score (run_id, query_id, item_id, pair_key, margin, logit_positive,
    logit_negative, logsumexp, entropy, fired, reused_from)
VALUES (1, 1, 1, 'p', 1, 1, 0, 2, 0.5, false, NULL), (1, 1, 2, 'o', 2, 2, 0, 3, 0.5, false, NULL),
    (2, 1, 1, 'p', 1, 1, 0, 2, 0.5, false, 1), (3, 1, 1, 'p', 1.5, 1.5, 0, 2, 0.5, false, NULL);
"""


def test_copied_scores_become_one_and_are_copied_again_by_a_downgrade(empty_database_url):
    upgrade(empty_database_url, "0020")
    write(empty_database_url, _COPIED_SCORES)

    upgrade(empty_database_url, "0019")

    stored = read(
        empty_database_url,
        "SELECT convert_from(pair_key, 'UTF8') AS key, margin, run_id, month::text FROM score "
        "ORDER BY 1",
    )
    assert list(map(tuple, stored)) == [("o", 2, 1, "2026-09-01"), ("p", 1, 1, "2026-09-01")]
    of_runs = read(
        empty_database_url,
        "SELECT c.run_id, c.item_id, s.margin FROM candidate c LEFT JOIN score s ON s.id = "
        "c.score_id ORDER BY 1, 2",
    )
    assert list(map(tuple, of_runs)) == [
        (1, 1, 1), (1, 2, 2), (1, 3, None), (2, 1, 1), (3, 1, 1),
    ]  # fmt: skip

    command.downgrade(_config(empty_database_url), "0020")

    copied = read(
        empty_database_url,
        "SELECT run_id, item_id, margin, reused_from FROM pair_score ORDER BY 1, 2",
    )
    assert list(map(tuple, copied)) == [
        (1, 1, 1, None), (1, 2, 2, None), (2, 1, 1, 1), (3, 1, 1, 1),
    ]  # fmt: skip


def test_upgrading_what_is_current_changes_nothing(database_url):
    upgrade(database_url)

    require_current(database_url)


def test_two_deployments_that_upgrade_at_once_do_not_collide(empty_database_url):
    code = f"from nightshift.migrations import upgrade; upgrade({empty_database_url!r})"

    deployments = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]

    assert [deployment.wait() for deployment in deployments] == [0, 0]
    require_current(empty_database_url)


@pytest.mark.night
def test_an_upgrade_that_another_session_holds_up_says_so(database_url):
    """Ten seconds are waited for it."""
    engine = create_engine(database_url)
    with engine.begin() as connection:
        connection.execute(text("LOCK alembic_version"))

        with pytest.raises(ConflictError, match="another process upgrades it"):
            upgrade(database_url)
    engine.dispose()
    upgrade(database_url)


def test_an_empty_database_is_behind_and_the_error_names_the_remedy(empty_database_url):
    with pytest.raises(DatabaseBehindError, match="nightshift db upgrade"):
        require_current(empty_database_url)


def test_a_half_migrated_database_is_behind(empty_database_url):
    upgrade(empty_database_url, "0001")

    with pytest.raises(DatabaseBehindError, match=rf"0001.*{head_revision()}"):
        require_current(empty_database_url)


def test_the_current_revision_is_the_head_after_an_upgrade(database_url):
    engine = create_engine(database_url)
    with engine.connect() as connection:
        assert current_revision(connection) == head_revision()
    engine.dispose()


def test_what_a_run_fills_is_partitioned_by_run(database_url):
    rows = read(
        database_url,
        "SELECT partrelid::regclass::text AS name, pg_get_partkeydef(partrelid) AS key "
        "FROM pg_partitioned_table",
    )

    by_run = dict.fromkeys(PARTITIONED_TABLES, "LIST (run_id)")
    assert {row.name: row.key for row in rows} == {**by_run, "score": "LIST (scorer)"}


def test_every_table_and_view_says_what_it_holds(database_url):
    rows = read(
        database_url,
        "SELECT relname, obj_description(oid, 'pg_class') AS comment FROM pg_class "
        "WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v') "
        "AND relname <> 'alembic_version'",
    )

    assert {row.relname for row in rows} == {*Base.metadata.tables, *VIEWS}
    assert [row.relname for row in rows if not row.comment] == []


def test_the_comments_in_the_database_are_those_of_the_code(database_url):
    rows = read(
        database_url,
        "SELECT attrelid::regclass::text AS name, attname, "
        "col_description(attrelid, attnum) AS comment FROM pg_attribute "
        "JOIN pg_class c ON c.oid = attrelid WHERE relnamespace = 'public'::regnamespace "
        "AND relkind IN ('r', 'p') AND attnum > 0",
    )
    stored = {(row.name.strip('"'), row.attname): row.comment for row in rows}

    for table in Base.metadata.tables.values():
        for column in table.columns:
            assert stored[table.name, column.name] == column.comment


def test_every_column_of_every_table_and_view_says_what_it_holds(database_url):
    rows = read(
        database_url,
        "SELECT relname, attname, col_description(attrelid, attnum) AS comment FROM pg_attribute "
        "JOIN pg_class c ON c.oid = attrelid WHERE relnamespace = 'public'::regnamespace "
        "AND relkind IN ('r', 'p', 'v') AND attnum > 0 AND NOT attisdropped "
        "AND relname <> 'alembic_version'",
    )

    assert {row.relname for row in rows} == {*Base.metadata.tables, *VIEWS}
    assert [f"{row.relname}.{row.attname}" for row in rows if not row.comment] == []


#: Two catalogues at revision 0017: an item of the first is gone, another one has a stale vector.
_ITEMS_OF_0017 = """
INSERT INTO catalog (name) VALUES ('things'), ('empty');
INSERT INTO model (fingerprint, kind, spec, card, package_version)
VALUES ('e', 'embedder', 'x', '{}', '1'), ('s', 'scorer', 'x', '{}', '1');
INSERT INTO query_set (name, content_hash) VALUES ('questions', 'c');
INSERT INTO item (catalog_id, external_id, parts, text_hash, content_hash, state, metadata)
VALUES (1, 'a', '[{"kind": "text", "text": "cube"}]', sha256('cube'), sha256('cube'), 'live',
        '{"price": 1}'),
    (1, 'b', '[{"kind": "text", "text": "cube"}]', sha256('cube'), sha256('cube'), 'gone', '{}'),
    (1, 'c', '[{"kind": "text", "text": "ball"}]', sha256('ball'), sha256('ball'), 'live', '{}');
INSERT INTO index (catalog_id, name, version, embedder, embedder_fingerprint, parts, dim,
    collection) VALUES (1, 'default', 1, 'x', 'e', 'text', 4, 'c');
INSERT INTO run (kind, state, stage, catalog_id, index_id, query_set_id, method, scorer,
    scorer_fingerprint, params, finished_at)
VALUES ('rerank', 'done', 'rank', 1, 1, 1, 'retllm', 'x', 's', '{}', now());
SELECT make_run_partitions(1);
INSERT INTO candidate VALUES (1, 1, 1, 1, 0.9), (1, 1, 2, 2, 0.8), (1, 1, 99, 3, 0.7);
"""


def test_items_become_versions_of_contents_and_old_runs_show_all_of_theirs(empty_database_url):
    upgrade(empty_database_url, "0017")
    write(empty_database_url, _ITEMS_OF_0017)
    keys = [embedding_key(name, hashlib.sha256(b"cube").digest(), "e") for name in ("a", "c")]
    write(
        empty_database_url,
        "INSERT INTO embedding (index_id, item_id, key, run_id) "
        f"VALUES (1, 1, '{keys[0]}', 1), (1, 3, '{keys[1]}', 1)",
    )

    upgrade(empty_database_url)

    def values(query):
        return list(map(tuple, read(empty_database_url, query)))

    revisions = "SELECT catalog_id, number, items, added, changed, removed FROM revision ORDER BY 2"
    versions = (
        "SELECT external_id, first_revision, last_revision, parts[0] ->> 'text', metadata "
        "FROM item JOIN item_version ON item_id = item.id JOIN content ON content.id = content_id "
        "ORDER BY 1"
    )
    assert values(revisions) == [(1, 1, 3, 3, 0, 0), (1, 2, 2, 0, 0, 1)]
    assert values(versions) == [
        ("a", 1, CURRENT, "cube", {"price": 1}),
        ("b", 1, 1, "cube", {}),
        ("c", 1, CURRENT, "ball", {}),
    ]
    assert values("SELECT count(*) FROM content") == [(2,)]
    assert values("SELECT item_id, key, content = sha256('cube') FROM embedding") == [
        (1, keys[0], True)
    ]
    assert values("SELECT revision FROM run") == [(1,)]
    candidates = values("SELECT item_id, content_id FROM candidate ORDER BY 1")
    assert [item_id for item_id, _ in candidates] == [1, 2]
    assert len({content_id for _, content_id in candidates}) == 1
    digests = values("SELECT digest, parts FROM content")
    assert all(bytes(digest) == content_digest(parts) for digest, parts in digests)

    command.downgrade(_config(empty_database_url), "0017")

    items = (
        "SELECT external_id, parts[0] ->> 'text', text_hash, state, metadata FROM item ORDER BY 1"
    )
    cube, ball = (hashlib.sha256(name).digest() for name in (b"cube", b"ball"))
    assert [(*row[:2], bytes(row[2]), *row[3:]) for row in values(items)] == [
        ("a", "cube", cube, "live", {"price": 1}),
        ("b", "cube", cube, "gone", {}),
        ("c", "ball", ball, "live", {}),
    ]
    assert values("SELECT item_id, key FROM embedding") == [(1, keys[0])]
