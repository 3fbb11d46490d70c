"""States that cannot be: Postgres refuses each of them, and names the rule."""

import pytest
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
from nightshift.schema.result_tables import PARTITIONED_TABLES
from nightshift.schema.tables import Base
from nightshift.stores.index.milvus.indexes import INDEX_TYPES

_PARTS = """'[{"kind": "text", "text": "a red cube"}]'"""

#: A little of everything, in states that can be. Run 1 indexes, 2 re-ranks, 3 makes tokens.
_RIGHT = f"""
INSERT INTO catalog (id, name) VALUES (1, 'things'), (2, 'others');
INSERT INTO catalog_import (id, catalog_id, source) VALUES (1, 1, 'things.csv');
INSERT INTO revision (catalog_id, number, import_id, rolled_back_to, items, added, changed, removed)
VALUES (1, 1, 1, NULL, 2, 2, 0, 0), (1, 2, NULL, 1, 2, 0, 0, 0);
INSERT INTO content (id, digest, parts, content_hash)
VALUES (1, 'd1', {_PARTS}, 'c'), (2, 'd2', {_PARTS}, 'c');
INSERT INTO item (id, catalog_id, external_id, import_id)
VALUES (1, 1, 'i1', 1), (2, 1, 'i2', 1);
INSERT INTO item_version (item_id, first_revision, last_revision, content_id)
VALUES (1, 1, 1, 1), (1, 2, 2147483647, 2), (2, 1, 2147483647, 1);
INSERT INTO model (fingerprint, kind, spec, card, package_version)
VALUES ('e', 'embedder', 'x', '{{}}', '1'), ('s', 'scorer', 'x', '{{}}', '1'),
    ('v', 'vision', 'x', '{{}}', '1');
INSERT INTO index (id, catalog_id, name, version, embedder, embedder_fingerprint, parts, dim,
    collection)
VALUES (1, 1, 'default', 1, 'x', 'e', 'text', 4, 'c1'), (2, 1, 'default', 2, 'x', 'e', 'text', 4,
    'c2');
INSERT INTO embedding (index_id, item_id, key, content, run_id)
VALUES (1, 1, 'k1', 'c', 1), (1, 2, 'k2', 'c', 1);
INSERT INTO index_range (index_id, range, live, digest, rows) VALUES (1, 255, 1, 0, 2);
INSERT INTO known_image VALUES (sha256('a'), '9 1', sha256('b'), true);
INSERT INTO query_set (id, name, content_hash) VALUES (1, 'q', 'c1'), (2, 'q', 'c2');
INSERT INTO query (id, query_set_id, external_id, parts, content_hash)
VALUES (1, 1, 'q1', {_PARTS}, 'c'), (2, 1, 'q2', {_PARTS}, 'c');
INSERT INTO qrel VALUES (1, 'q1', 'i1', 1);
INSERT INTO token_set (id, catalog_id, vision_fingerprint, codec, width, precision, address)
VALUES (1, 1, 'v', 'int8', 4, 'float32', 'a'), (2, 1, 'v', 'none', 4, 'float32', 'b');
INSERT INTO token_shard (id, token_set_id, name, n_bytes, sha256, run_id)
VALUES (1, 1, 'one', 9, 's', 3), (2, 1, 'two', 9, 's', 3);
INSERT INTO model_load (worker_id, spec, fingerprint, files) VALUES ('w', 'x', 'e', '[]');
INSERT INTO token_record (token_set_id, content, shard_id, start, n_bytes, digest, n_images,
    n_tokens)
VALUES (1, 'c', 1, 0, 9, 'd', 1, 4);
INSERT INTO run (id, kind, stage, catalog_id, revision, index_id, query_set_id, token_set_id,
    method, scorer, scorer_fingerprint, params)
VALUES (1, 'index', 'embed', 1, 1, 1, NULL, NULL, NULL, NULL, NULL, '{{}}'),
    (2, 'rerank', 'rank', 1, 1, 1, 1, 1, 'retllm', 'x', 's', '{{}}'),
    (3, 'tokens', 'tokens', 1, 1, NULL, NULL, 1, NULL, 'x', 'v', '{{}}');
SELECT make_run_partitions(id) FROM run;
INSERT INTO job (run_id, id, stage, queue, payload, n_units) VALUES (2, 1, 'rank', 'r', '{{}}', 4);
INSERT INTO job_count VALUES (2, 'rank', 'done', 0, 0, 0);
INSERT INTO tally VALUES (2, 'pairs', 1);
INSERT INTO tally_delta (run_id, name, amount) VALUES (2, 'pairs', 1);
INSERT INTO candidate (run_id, query_id, item_id, content_id, coarse_rank, coarse_score)
VALUES (2, 1, 1, 1, 1, 0.9), (2, 1, 2, 1, 2, 0.8);
SELECT make_score_partition(number, '2026-12-01') FROM model WHERE fingerprint = 's';
INSERT INTO score (scorer, month, run_id, pair_key, margin, logit_positive, logit_negative,
    logsumexp, entropy, fired, fired_layer)
SELECT number, '2026-12-01', 2, key, 1, 1, 0, 2, 0.5, true, 3
FROM model, unnest(ARRAY[bytea 'p', 'o']) AS key WHERE fingerprint = 's';
INSERT INTO ranking (run_id, query_id, final_rank, item_id, coarse_rank, coarse_score, margin,
    probability, entropy, fired, fired_layer, tie_group, tie_size, decided_by, scorer_fingerprint)
VALUES (2, 1, 1, 1, 1, 0.9, 1, 0.7, 0.5, true, 3, 1, 1, 'score', 's'),
    (2, 1, 2, 2, 2, 0.8, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'coarse', 's');
INSERT INTO answer (run_id, query_id, text, shown, cited, n_tokens, ended, answerer)
VALUES (2, 1, 'a cube', '[1]', '[]', 2, true, '{{}}');
INSERT INTO calibration VALUES (2, 1, '{{}}');
INSERT INTO failure (run_id, import_id, query_set_id, stage, subject_kind, subject_id, reason,
    message)
VALUES (2, NULL, NULL, 'score', 'pair', 'a', 'r', 'm'), (2, NULL, NULL, 'score', 'pair', 'b', 'r',
    'm'), (NULL, 1, NULL, 'import', 'line', '1', 'r', 'm'), (NULL, NULL, 1, 'import', 'line', '1',
    'r', 'm');
"""

#: Constraint → what it refuses; several ways are distinguished by a suffix.
_WRONG = {
    "uq_catalog_name": "UPDATE catalog SET name = 'things'",
    "ck_catalog_import_adds_up": "UPDATE catalog_import SET read = 2, finished_at = now()",
    "ck_catalog_import_counts": "UPDATE catalog_import SET failed = -1",
    "uq_item_catalog_id_external_id": "UPDATE item SET external_id = 'i1'",
    "ck_item_named": "UPDATE item SET external_id = '' WHERE id = 1",
    "ck_revision_number": "UPDATE revision SET number = 0 WHERE number = 1",
    "ck_revision_counts": "UPDATE revision SET removed = -1",
    "ck_revision_rolled_back_to": "UPDATE revision SET rolled_back_to = 2 WHERE number = 2",
    "uq_content_digest": "UPDATE content SET digest = 'd1'",
    "ck_content_has_parts": "UPDATE content SET parts = '[]'",
    "ck_item_version_revisions": "UPDATE item_version SET last_revision = 0 WHERE item_id = 2",
    "uq_item_version_current": "UPDATE item_version SET last_revision = 2147483647",
    "ck_model_kind": "UPDATE model SET kind = 'oracle'",
    "uq_index_catalog_id_name_version": "UPDATE index SET version = 1",
    "uq_index_collection": "UPDATE index SET collection = 'c1'",
    "ck_index_parts": "UPDATE index SET parts = 'sound'",
    "ck_index_dim": "UPDATE index SET dim = 0",
    "ck_index_version": "UPDATE index SET version = 0 WHERE id = 1",
    "ck_index_metric": "UPDATE index SET metric = 'L2'",
    "ck_index_index_type": "UPDATE index SET index_type = 'BTREE'",
    "ck_index_indexstate": "UPDATE index SET state = 'lost'",
    "ck_index_range_range": "UPDATE index_range SET range = 256",
    "ck_index_range_counts": "UPDATE index_range SET rows = 0",
    "ck_known_image_digests": "UPDATE known_image SET sha256 = 'short'",
    "uq_query_set_name_content_hash": "UPDATE query_set SET content_hash = 'c1'",
    "ck_query_set_n_queries": "UPDATE query_set SET n_queries = -1",
    "uq_query_query_set_id_external_id": "UPDATE query SET external_id = 'q1'",
    "ck_query_named": "UPDATE query SET external_id = '' WHERE id = 1",
    "ck_query_has_parts": "UPDATE query SET parts = '[]'",
    "ck_run_ended": "UPDATE run SET state = 'done'",
    "ck_run_ended: it goes on": "UPDATE run SET finished_at = now()",
    "ck_run_method": "UPDATE run SET method = 'guess' WHERE id = 2",
    "ck_run_priority": "UPDATE run SET priority = 10",
    "ck_run_rerank_has_method": "UPDATE run SET method = NULL WHERE id = 2",
    "ck_run_rerank_has_method: an index has none": "UPDATE run SET method = 'retllm' WHERE id = 1",
    "ck_run_rerank_has_queries": "UPDATE run SET query_set_id = NULL WHERE id = 2",
    "ck_run_rerank_has_scorer": "UPDATE run SET scorer_fingerprint = NULL, scorer = NULL "
    "WHERE id = 2",
    "ck_run_runkind": "UPDATE run SET kind = 'walk' WHERE id = 3",
    "ck_run_runstate": "UPDATE run SET state = 'lost'",
    "ck_run_scorer_is_known": "UPDATE run SET scorer = 'x' WHERE id = 1",
    "ck_run_stage": "UPDATE run SET stage = 'sleep' WHERE id = 2",
    "ck_run_stage_of_kind": "UPDATE run SET stage = 'score' WHERE id = 1",
    "ck_run_stage_of_kind: tokens": "UPDATE run SET stage = 'rank' WHERE id = 3",
    "ck_run_stage_of_kind: rerank": "UPDATE run SET stage = 'tokens' WHERE id = 2",
    "ck_run_tokens_have_no_index": "UPDATE run SET index_id = NULL WHERE id = 2",
    "ck_job_counts": "UPDATE job SET attempt = -1",
    "ck_job_ended": "UPDATE job SET state = 'done'",
    "ck_job_ended: failed": "UPDATE job SET state = 'failed'",
    "ck_job_ended: it waits": "UPDATE job SET finished_at = now()",
    "ck_job_jobstate": "UPDATE job SET state = 'lost'",
    "ck_job_lease": "UPDATE job SET state = 'running', worker_id = 'w', started_at = now()",
    "ck_job_lease: it waits": "UPDATE job SET lease_until = now()",
    "ck_job_n_failed": "UPDATE job SET n_failed = n_units + 1",
    "ck_job_running": "UPDATE job SET state = 'running', lease_until = now(), started_at = now()",
    "ck_job_running: since when": "UPDATE job SET state = 'running', lease_until = now(), "
    "worker_id = 'w'",
    "ck_job_stage": "UPDATE job SET stage = 'sleep'",
    "ck_tally_delta_tallyname": "UPDATE tally_delta SET name = 'luck'",
    "ck_tally_tallyname": "UPDATE tally SET name = 'luck'",
    "ck_failure_belongs_to_one": "UPDATE failure SET import_id = 1 WHERE run_id = 2",
    "ck_failure_belongs_to_one: none": "UPDATE failure SET run_id = NULL WHERE run_id = 2",
    "ck_failure_stage_of_owner": "UPDATE failure SET stage = 'import' WHERE run_id = 2",
    "ck_failure_stage_of_owner: import": "UPDATE failure SET stage = 'rank' WHERE import_id = 1",
    "ck_failure_subjectkind": "UPDATE failure SET subject_kind = 'mood'",
    "uq_failure_run_subject": "UPDATE failure SET subject_id = 'a'",
    "ck_candidate_rank": "UPDATE candidate SET coarse_rank = 0 WHERE item_id = 1",
    "uq_candidate_run_id_query_id_coarse_rank": "UPDATE candidate SET coarse_rank = 1",
    "ck_score_finite": "UPDATE score SET margin = 'NaN'",
    "ck_score_finite: infinite": "UPDATE score SET margin = '-Infinity'",
    "ck_score_fired": "UPDATE score SET fired_layer = NULL",
    "ck_score_fired: nothing did": "UPDATE score SET fired = false",
    "ck_score_logits": "UPDATE score SET entropy = NULL",
    "ck_score_read": "UPDATE score SET logit_positive = NULL, logit_negative = NULL, "
    "logsumexp = NULL, entropy = NULL",
    "uq_model_number": "UPDATE model SET number = 1",
    "ck_ranking_decidedby": "UPDATE ranking SET decided_by = 'luck' WHERE margin IS NULL",
    "ck_ranking_fired": "UPDATE ranking SET fired_layer = NULL",
    "ck_ranking_fired: it failed": "UPDATE ranking SET fired_layer = 3",
    "ck_ranking_probability": "UPDATE ranking SET probability = 1.1",
    "ck_ranking_ranks": "UPDATE ranking SET coarse_rank = 0",
    "ck_ranking_reason": "UPDATE ranking SET decided_by = 'score'",
    "ck_ranking_reason: no tie": "UPDATE ranking SET decided_by = 'entropy' WHERE final_rank = 1",
    "ck_ranking_scored": "UPDATE ranking SET margin = NULL, decided_by = 'coarse'",
    "ck_ranking_scored: no margin": "UPDATE ranking SET probability = 0.5 WHERE margin IS NULL",
    "ck_ranking_ties": "UPDATE ranking SET tie_size = 0 WHERE final_rank = 1",
    "uq_ranking_item": "UPDATE ranking SET item_id = 1",
    "ck_answer_lists": "UPDATE answer SET cited = '1'",
    "ck_answer_n_tokens": "UPDATE answer SET n_tokens = -1",
    "ck_calibration_statistics": "UPDATE calibration SET statistics = '[]'",
    "uq_token_set_catalog_id_vision_fingerprint_codec": "UPDATE token_set SET codec = 'int8'",
    "ck_token_set_codebook": "UPDATE token_set SET codebook_digest = 'd'",
    "ck_token_set_width": "UPDATE token_set SET width = 0",
    "uq_token_shard_token_set_id_name": "UPDATE token_shard SET name = 'one'",
    "ck_token_shard_n_bytes": "UPDATE token_shard SET n_bytes = 0",
    "ck_token_record_counts": "UPDATE token_record SET n_images = 0",
    "ck_token_record_place": "UPDATE token_record SET start = -1",
    "ck_model_load_files": "UPDATE model_load SET files = '{}'",
    "ck_model_load_changed": "UPDATE model_load SET changed_at = now()",
}

#: Of a run's partitions only jobs refer to other tables (docs/decisions/0011), and a run that is
#: not there has no partition.
_REFERENCES = [
    (column, key)
    for table in Base.metadata.tables.values()
    if table.name not in PARTITIONED_TABLES
    for column in table.columns
    for key in column.foreign_keys
]


@pytest.fixture(scope="module")
def engine(shared_database_url):
    engine = create_engine(shared_database_url)
    with engine.begin() as connection:
        connection.exec_driver_sql(_RIGHT)
    yield engine
    engine.dispose()


def refused_by(engine, statement):
    """The rule that refuses a statement, by the name that the whole table knows it by."""
    with engine.connect() as connection, pytest.raises(IntegrityError) as refused:
        connection.exec_driver_sql(statement)
    name = refused.value.orig.diag.constraint_name
    with engine.connect() as connection:
        of_partition = connection.execute(
            text("SELECT inhparent::regclass::text FROM pg_inherits "
                 "WHERE inhrelid = to_regclass(:name)"),
            {"name": name},
        ).scalar()  # fmt: skip
    return of_partition or name


@pytest.mark.parametrize("wrong", _WRONG)
def test_a_wrong_state_is_refused(engine, wrong):
    assert refused_by(engine, _WRONG[wrong]) == wrong.partition(":")[0]


@pytest.mark.parametrize(
    ("column", "key"),
    _REFERENCES,
    ids=[f"{reference.table.name}.{reference.name}" for reference, _ in _REFERENCES],
)
def test_what_is_not_there_cannot_be_referred_to(engine, column, key):
    nobody = "'nobody'" if column.type.python_type is str else f"-{column.name}"
    statement = (
        f'UPDATE "{column.table.name}" SET {column.name} = {nobody} WHERE {column.name} IS NOT NULL'
    )

    assert refused_by(engine, statement) == key.constraint.name


def test_no_rule_goes_without_a_state_that_it_refuses(engine):
    with engine.connect() as connection:
        rules = connection.execute(
            text(
                "SELECT conname FROM pg_constraint JOIN pg_class c ON c.oid = conrelid "
                "WHERE contype = 'c' AND connamespace = 'public'::regnamespace "
                "AND NOT relispartition "
                "UNION SELECT indexrelid::regclass::text FROM pg_index "
                "JOIN pg_class c ON c.oid = indrelid WHERE indisunique AND NOT indisprimary "
                "AND relnamespace = 'public'::regnamespace AND NOT relispartition"
            )
        ).scalars()

        assert {wrong.partition(":")[0] for wrong in _WRONG} == set(rules)


@pytest.mark.parametrize("index_type", INDEX_TYPES)
def test_every_index_type_that_can_be_asked_for_is_a_right_state(engine, index_type):
    with engine.connect() as connection:
        connection.execute(text("UPDATE index SET index_type = :type"), {"type": index_type})
