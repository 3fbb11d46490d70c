"""A comment on every column of every table and view.

Partitions have none: they are read through their parents, which have them.

Revision: 0010, after 0009.
Compatible with workers of the previous release: yes, comments alone.
"""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

_ROW = "Row id."
_LAYER = "Decoder layer, from 0, whose uncertainty fired it; empty where nothing fired."

_COMMENTS = {
    "catalog": {
        "id": _ROW,
        "name": "Unique, as given to catalog import.",
        "created_at": "When something was first imported into it.",
    },
    "catalog_import": {
        "id": _ROW,
        "catalog_id": "The catalogue that it fills.",
        "source": "Path or URL that was read, without passwords.",
        "read": "Rows read so far.",
        "accepted": "Rows that were new, changed, or back after they were gone.",
        "failed": "Rows that have a failure instead.",
        "unchanged": "Rows that were stored already, as they are.",
        "started_at": "When reading began.",
        "finished_at": (
            "When it ended, whole or not; empty while it reads, and where it was killed."
        ),
    },
    "item": {
        "id": _ROW,
        "catalog_id": "The catalogue that it belongs to.",
        "state": "live, or gone: no longer in its source, kept for old results, never searched.",
        "updated_at": "When content, metadata or state last changed.",
    },
    "model": {
        "fingerprint": "Short name of everything that could change its output.",
        "kind": "embedder, scorer, or vision: the vision tower of a scorer.",
        "package_version": "Of Nightshift, when it first met this model.",
        "created_at": "When it was first planned with.",
    },
    "index": {
        "id": _ROW,
        "catalog_id": "The catalogue whose items it holds.",
        "name": "Of all its versions.",
        "version": "From 1 within a name; the newest that is ready is searched.",
        "embedder_fingerprint": "The model that made its vectors, parameters included.",
        "dim": "Numbers in a vector.",
        "metric": (
            "How Milvus compares vectors: COSINE or IP, the same for ours, which have length 1."
        ),
        "index_type": "How Milvus searches: FLAT is exact, the other types are not.",
        "collection": "The Milvus collection that holds the vectors.",
        "state": "building, ready (searched) or retired (a newer version took over).",
        "created_at": "When it was planned.",
    },
    "embedding": {
        "index_id": "The index version that the vector belongs to.",
        "item_id": "The item that it stands for.",
    },
    "query_set": {
        "id": _ROW,
        "name": "Of its import; sets of other content may have the same.",
        "content_hash": "SHA-256 of all its queries, judgements and failures, in order.",
        "n_queries": "Queries that it holds.",
        "created_at": "When it was imported.",
    },
    "query": {
        "id": _ROW,
        "query_set_id": "The set that it belongs to.",
        "external_id": "The query's id in its file.",
        "parts": "Texts and images in order, as item.parts.",
        "text_hash": "SHA-256 of the texts alone; empty where there is none.",
        "image_hash": "SHA-256 of the images alone; empty where there is none.",
        "content_hash": "SHA-256 of all parts in order.",
        "metadata": "What came along; no model sees it.",
    },
    "qrel": {
        "query_set_id": "The set that holds the query.",
        "query_external_id": "The query, by its id in its file.",
        "item_external_id": "The item, by its id in its source; no catalogue need have it.",
        "relevance": (
            "Grade of the judgement: above 0 the item answers the query, else it does not."
        ),
    },
    "run": {
        "id": _ROW,
        "kind": "index, rerank or tokens.",
        "state": (
            "running, paused, done, failed or cancelled; a done or failed one may be taken "
            "up again."
        ),
        "stage": "The stage in hand; of an ended run the last one.",
        "catalog_id": "The catalogue that it works on.",
        "index_id": "The index version that it fills or searches; empty for a token build.",
        "query_set_id": "The queries that it ranks for; empty unless it is a re-ranking.",
        "method": "retllm, freeret or indexmllm; empty unless it is a re-ranking.",
        "scorer": (
            "The scorer, or the vision tower of a token build, as the operator named it; "
            "empty for an index build."
        ),
        "scorer_fingerprint": "Its row in model; empty for an index build.",
        "created_at": "When it was planned.",
        "finished_at": "When it became done, failed or cancelled; empty before.",
    },
    "job": {
        "run_id": "The run that it is part of; its partition.",
        "stage": "What is done to its units.",
        "state": (
            "queued, running, done, failed (a lone unit after its last attempt), or split: "
            "other jobs carry its work."
        ),
        "attempt": "Attempts that count; outages and hand-backs at shutdown do not.",
        "worker_id": "Who holds it or ended it; empty while it waits.",
        "lease_until": "When it is taken from a worker without progress; empty unless it runs.",
        "not_before": "Not claimed earlier: the back-off after a failed attempt.",
        "started_at": "When the last attempt began; empty before the first.",
        "finished_at": (
            "When it became done or failed or was cut in two; empty before, and "
            "where other jobs took over what waited."
        ),
        "n_failed": "Units that have a failure in place of a result.",
        "error": "Why the last attempt ended or was handed back; empty where it went well.",
    },
    "job_delta": {
        "id": _ROW,
        "run_id": "The run that the jobs are part of.",
        "stage": "Of the jobs.",
        "jobs": "Jobs that came to this stage and state, less those that left it.",
    },
    "job_count": {
        "run_id": "The run that the jobs are part of.",
        "stage": "Of the jobs.",
        "jobs": "Jobs in this stage and state.",
    },
    "tally_delta": {
        "id": _ROW,
        "run_id": "The run that the job is part of.",
        "name": (
            "pairs, prefixes, pictures, vectors, or top_share: summed over vectors, the "
            "share of the squared length in the five largest dimensions."
        ),
        "amount": "What this job adds; a count but for top_share.",
    },
    "tally": {
        "run_id": "The run that the jobs are part of.",
        "name": "As tally_delta.name.",
        "amount": "Sum over jobs that are done.",
    },
    "lease": {
        "name": "What is held: dispatcher, or milvus-writer.",
        "holder": "Who holds it; empty once it was given back.",
        "token": "Fencing token: one higher with each change of holder.",
        "expires_at": "When another may take it unless it is renewed.",
    },
    "worker": {
        "host": "The machine that it runs on.",
        "pid": "Its process there.",
        "device": "Where its models run, such as cpu or cuda:0.",
        "stages": "Stages that it serves, separated by commas.",
        "run_id": "The run that it works or loads for; empty while idle.",
        "job_id": "The job in hand; empty while idle.",
        "loading_since": "When that load began.",
        "started_at": "When it started.",
        "seen_at": "When it last reported, as it does every few seconds.",
        "stopped_at": (
            "When it stopped in an orderly way; empty while it runs, and where it was killed."
        ),
    },
    "failure": {
        "id": _ROW,
        "run_id": "Where it happened: exactly one of run, import and query set is given.",
        "import_id": "The import of items in which it happened.",
        "query_set_id": "The query set whose import it happened in.",
        "subject_kind": (
            "What subject_id names: a line, an item, a query, a pair, or a job or run as a whole."
        ),
        "created_at": "When it was first recorded.",
    },
    "candidate": {
        "run_id": "The run that searched; its partition.",
        "query_id": "The query, by query.id.",
        "item_id": "The item that was found, by item.id.",
    },
    "pair_score": {
        "run_id": "The run that needed the score; its partition.",
        "query_id": "The query, by query.id.",
        "item_id": "The candidate, by item.id.",
        "logit_positive": (
            "Of the positive label. This and the next three are empty where the "
            "model wrote the score."
        ),
        "logit_negative": "Of the negative label; in a list, of all its other members together.",
        "fired_layer": _LAYER,
    },
    "ranking": {
        "run_id": "The run that ranked; its partition.",
        "query_id": "The query, by query.id.",
        "final_rank": "Place after fine scoring, from 1.",
        "item_id": "The candidate, by item.id.",
        "coarse_rank": "Place in the coarse search, from 1.",
        "coarse_score": "Cosine similarity.",
        "entropy": "Nats, over the whole vocabulary; empty where none was read.",
        "fired": "Whether the visual enhancement acted; empty where the pair failed.",
        "fired_layer": _LAYER,
        "tie_size": (
            "Candidates in its tie group, 1 where it ties with none; empty where the pair failed."
        ),
        "decided_by": (
            "What put it here: score, entropy (tie-break) or coarse (order of the coarse search)."
        ),
        "scorer_fingerprint": "What scored it, parameters included; its row in model.",
    },
    "answer": {
        "run_id": "The run whose results were shown.",
        "query_id": "The query, by query.id.",
        "text": "What the model wrote.",
        "n_tokens": "Tokens that it wrote.",
        "created_at": "When it was kept.",
    },
    "calibration": {
        "run_id": "The run that ranked.",
        "job_id": "The rank job that observed it, by its number in the run.",
        "statistics": (
            "Counts by name, histograms as lists, counts by layer or cause as "
            "objects; sums of probabilities and squared errors in units of 2^-32."
        ),
    },
    "token_set": {
        "id": _ROW,
        "catalog_id": "The catalogue whose pictures it covers.",
        "vision_fingerprint": "The vision tower that made the tokens; its row in model.",
        "precision": "Number format that the tower computed in, such as float32.",
        "codebook_digest": "Of the codebook; part of the fingerprint of what reads through it.",
        "created_at": "When it was first planned.",
    },
    "token_shard": {
        "id": _ROW,
        "token_set_id": "The set that it is part of.",
        "n_bytes": "Size of the file.",
    },
    "token_record": {
        "token_set_id": "The set that it is part of.",
        "shard_id": "The file that holds it.",
        "n_bytes": "Length in the shard.",
        "n_images": "Pictures that it holds.",
    },
    "v_ranking": {
        "run_id": "The run that ranked; name it, for there is one partition for each.",
        "coarse_rank": "Place in the coarse search, from 1.",
        "coarse_score": "Cosine similarity.",
        "fired_layer": _LAYER,
        "tie_group": (
            "Candidates of one query with the same quantised score share it; empty "
            "where the pair failed."
        ),
        "tie_size": (
            "Candidates in its tie group, 1 where it ties with none; empty where the pair failed."
        ),
        "scorer_fingerprint": "What scored it, parameters included; its row in model.",
        "query_id": "The query, by query.id.",
        "item_id": "The item, by item.id.",
    },
    "v_run_progress": {
        "run_id": "The run, by run.id.",
        "kind": "index, rerank or tokens.",
        "run_state": "running, paused, done, failed or cancelled.",
        "stage": "embed, search, score, rank or answer; codebook or tokens of a token build.",
        "jobs": "Jobs of the stage, split ones included.",
        "queued": "Jobs that wait.",
        "running": "Jobs in the hands of workers.",
        "done": "Jobs that are done, though units of them may have failed.",
        "failed": "Jobs of a lone unit that failed for good.",
        "units_failed": "Units that have a failure in place of a result.",
        "started_at": "When its first job began; empty before.",
        "finished_at": "When the last of its jobs so far ended; empty before the first.",
    },
    "v_calibration": {
        "run_id": "The run, by run.id.",
        "value": (
            "Sum over the rank jobs: a count, or for probability_by_bin and squared_error "
            "a sum in units of 2^-32."
        ),
    },
    "v_tally": {
        "run_id": "The run, by run.id.",
        "name": "As tally_delta.name.",
        "amount": "Sum over the jobs that are done.",
    },
}

_WRITTEN = "This and the next three are empty where the model wrote the score."

# Those that had one before.
_BEFORE = {
    ("pair_score", "logit_positive"): _WRITTEN,
    ("tally", "name"): "Of what.",
    ("tally_delta", "name"): "Of what.",
}


def upgrade() -> None:
    for table, columns in _COMMENTS.items():
        for column, comment in columns.items():
            _comment(table, column, comment)


def downgrade() -> None:
    for table, columns in _COMMENTS.items():
        for column in columns:
            _comment(table, column, _BEFORE.get((table, column)))


def _comment(table: str, column: str, comment: str | None) -> None:
    # COMMENT takes no parameters, only literals.
    quoted = "NULL" if comment is None else "'" + comment.replace("'", "''") + "'"
    op.execute(f'COMMENT ON COLUMN "{table}"."{column}" IS {quoted}')
