"""The first tables.

Revision: 0001, after None.
Compatible with workers of the previous release: there is none.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "candidate",
        sa.Column("run_id", sa.BigInteger(), nullable=False),
        sa.Column("query_id", sa.BigInteger(), nullable=False),
        sa.Column("item_id", sa.BigInteger(), nullable=False),
        sa.Column("coarse_rank", sa.SmallInteger(), nullable=False, comment="From 1."),
        sa.Column("coarse_score", sa.REAL(), nullable=False, comment="Cosine similarity."),
        sa.CheckConstraint("coarse_rank >= 1", name=op.f("ck_candidate_rank")),
        sa.PrimaryKeyConstraint("run_id", "query_id", "item_id", name=op.f("pk_candidate")),
        comment="An item that the coarse search found for a query.",
        postgresql_partition_by="LIST (run_id)",
    )
    op.create_table(
        "catalog",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_catalog")),
        sa.UniqueConstraint("name", name=op.f("uq_catalog_name")),
        comment="A named collection of items.",
    )
    op.create_table(
        "lease",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("holder", sa.Text(), nullable=False),
        sa.Column("token", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_lease")),
        comment="Named rights held by one process at a time.",
    )
    op.create_table(
        "model",
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("spec", sa.Text(), nullable=False, comment="As the operator named it."),
        sa.Column(
            "card",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=False,
            comment="Weights digest or hub revision, configuration, precision, method parameters.",
        ),
        sa.Column("package_version", sa.Text(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("fingerprint", name=op.f("pk_model")),
        comment="A model by fingerprint: what made a vector or a score.",
    )
    op.create_table(
        "pair_score",
        sa.Column("run_id", sa.BigInteger(), nullable=False),
        sa.Column("query_id", sa.BigInteger(), nullable=False),
        sa.Column("item_id", sa.BigInteger(), nullable=False),
        sa.Column(
            "pair_key",
            sa.LargeBinary(),
            nullable=False,
            comment="SHA-256 of scorer fingerprint, query content and item content.",
        ),
        sa.Column(
            "margin",
            sa.REAL(),
            nullable=False,
            comment="Log-odds: positive label's logit minus the negative's.",
        ),
        sa.Column("logit_positive", sa.REAL(), nullable=False),
        sa.Column("logit_negative", sa.REAL(), nullable=False),
        sa.Column("logsumexp", sa.REAL(), nullable=False, comment="Over the whole vocabulary."),
        sa.Column("entropy", sa.REAL(), nullable=False, comment="Nats, over the whole vocabulary."),
        sa.Column(
            "fired", sa.Boolean(), nullable=False, comment="Whether the visual enhancement acted."
        ),
        sa.Column("fired_layer", sa.SmallInteger(), nullable=True),
        sa.Column(
            "uncertainty", sa.REAL(), nullable=True, comment="Of the layer that decided, 0 to 1."
        ),
        sa.Column(
            "plain_margin",
            sa.REAL(),
            nullable=True,
            comment="Without the enhancement, where the run compared the two.",
        ),
        sa.Column(
            "reused_from",
            sa.BigInteger(),
            nullable=True,
            comment="The run that computed it, if not this.",
        ),
        sa.PrimaryKeyConstraint("run_id", "query_id", "item_id", name=op.f("pk_pair_score")),
        comment="What the scorer read off one (query, candidate) pair, never rounded.",
        postgresql_partition_by="LIST (run_id)",
    )
    op.create_index("ix_pair_score_pair_key", "pair_score", ["pair_key"], unique=False)
    op.create_table(
        "query_set",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("content_hash", sa.LargeBinary(), nullable=False),
        sa.Column("n_queries", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_query_set")),
        sa.UniqueConstraint("name", "content_hash", name=op.f("uq_query_set_name_content_hash")),
        comment="A named, immutable list of queries.",
    )
    op.create_table(
        "ranking",
        sa.Column("run_id", sa.BigInteger(), nullable=False),
        sa.Column("query_id", sa.BigInteger(), nullable=False),
        sa.Column("final_rank", sa.SmallInteger(), nullable=False),
        sa.Column("item_id", sa.BigInteger(), nullable=False),
        sa.Column("coarse_rank", sa.SmallInteger(), nullable=False),
        sa.Column("coarse_score", sa.REAL(), nullable=False),
        sa.Column(
            "margin",
            sa.REAL(),
            nullable=True,
            comment="Empty where the pair failed: it keeps its coarse order below the scored.",
        ),
        sa.Column("probability", sa.REAL(), nullable=True, comment="Logistic of the margin."),
        sa.Column("entropy", sa.REAL(), nullable=True),
        sa.Column("fired", sa.Boolean(), nullable=True),
        sa.Column("fired_layer", sa.SmallInteger(), nullable=True),
        sa.Column(
            "tie_group",
            sa.SmallInteger(),
            nullable=True,
            comment="Candidates of one query with the same quantised score share it.",
        ),
        sa.Column("tie_size", sa.SmallInteger(), nullable=True),
        sa.Column(
            "decided_by",
            sa.Enum(
                "score",
                "entropy",
                "coarse",
                name="decidedby",
                native_enum=False,
                create_constraint=True,
                length=16,
            ),
            nullable=False,
        ),
        sa.Column("scorer_fingerprint", sa.Text(), nullable=False),
        sa.CheckConstraint("final_rank >= 1 AND coarse_rank >= 1", name=op.f("ck_ranking_ranks")),
        sa.CheckConstraint("probability BETWEEN 0 AND 1", name=op.f("ck_ranking_probability")),
        sa.PrimaryKeyConstraint("run_id", "query_id", "final_rank", name=op.f("pk_ranking")),
        comment="A candidate's final place, and why it stands there.",
        postgresql_partition_by="LIST (run_id)",
    )
    op.create_index("uq_ranking_item", "ranking", ["run_id", "query_id", "item_id"], unique=True)
    op.create_table(
        "worker",
        sa.Column("id", sa.Text(), nullable=False, comment="host:pid:random"),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("pid", sa.BigInteger(), nullable=False),
        sa.Column("device", sa.Text(), nullable=False),
        sa.Column("stages", sa.Text(), nullable=False),
        sa.Column(
            "model", sa.Text(), nullable=True, comment="Fingerprint of the weights it has loaded."
        ),
        sa.Column("run_id", sa.BigInteger(), nullable=True),
        sa.Column("job_id", sa.BigInteger(), nullable=True),
        sa.Column("units_per_s", sa.Double(), nullable=True, comment="Over its last job."),
        sa.Column(
            "started_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column(
            "seen_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.Column("stopped_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_worker")),
        comment="Worker processes as they last reported themselves.",
    )
    op.create_index(op.f("ix_worker_seen_at"), "worker", ["seen_at"], unique=False)
    op.create_table(
        "catalog_import",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("catalog_id", sa.BigInteger(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("read", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("accepted", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("failed", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("unchanged", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column(
            "started_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "finished_at IS NULL OR read = accepted + failed + unchanged",
            name=op.f("ck_catalog_import_adds_up"),
        ),
        sa.ForeignKeyConstraint(
            ["catalog_id"],
            ["catalog.id"],
            name=op.f("fk_catalog_import_catalog_id_catalog"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_catalog_import")),
        comment="One reading of a source into a catalogue, with its counts.",
    )
    op.create_index(
        op.f("ix_catalog_import_catalog_id"), "catalog_import", ["catalog_id"], unique=False
    )
    op.create_table(
        "index",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("catalog_id", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column(
            "embedder",
            sa.Text(),
            nullable=False,
            comment="Specification, such as open_clip:ViT-B-32/openai.",
        ),
        sa.Column("embedder_fingerprint", sa.Text(), nullable=False),
        sa.Column(
            "parts",
            sa.Text(),
            nullable=False,
            comment="The parts of an item that the embedder sees.",
        ),
        sa.Column("dim", sa.BigInteger(), nullable=False),
        sa.Column("metric", sa.Text(), server_default="COSINE", nullable=False),
        sa.Column("index_type", sa.Text(), server_default="FLAT", nullable=False),
        sa.Column("collection", sa.Text(), nullable=False),
        sa.Column(
            "state",
            sa.Enum(
                "building",
                "ready",
                "retired",
                name="indexstate",
                native_enum=False,
                create_constraint=True,
                length=16,
            ),
            server_default="building",
            nullable=False,
        ),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.CheckConstraint("dim > 0", name=op.f("ck_index_dim")),
        sa.ForeignKeyConstraint(
            ["catalog_id"],
            ["catalog.id"],
            name=op.f("fk_index_catalog_id_catalog"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["embedder_fingerprint"],
            ["model.fingerprint"],
            name=op.f("fk_index_embedder_fingerprint_model"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_index")),
        sa.UniqueConstraint(
            "catalog_id", "name", "version", name=op.f("uq_index_catalog_id_name_version")
        ),
        sa.UniqueConstraint("collection", name=op.f("uq_index_collection")),
        comment="One version of an index over a catalogue, in one Milvus collection.",
    )
    op.create_table(
        "qrel",
        sa.Column("query_set_id", sa.BigInteger(), nullable=False),
        sa.Column("query_external_id", sa.Text(), nullable=False),
        sa.Column("item_external_id", sa.Text(), nullable=False),
        sa.Column("relevance", sa.SmallInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["query_set_id"],
            ["query_set.id"],
            name=op.f("fk_qrel_query_set_id_query_set"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint(
            "query_set_id", "query_external_id", "item_external_id", name=op.f("pk_qrel")
        ),
        comment="Judgements: which item answers which query, by external ids.",
    )
    op.create_table(
        "query",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("query_set_id", sa.BigInteger(), nullable=False),
        sa.Column("external_id", sa.Text(), nullable=False),
        sa.Column("parts", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("text_hash", sa.LargeBinary(), nullable=True),
        sa.Column("image_hash", sa.LargeBinary(), nullable=True),
        sa.Column("content_hash", sa.LargeBinary(), nullable=False),
        sa.Column(
            "metadata", postgresql.JSONB(astext_type=sa.Text()), server_default="{}", nullable=False
        ),
        sa.CheckConstraint("jsonb_array_length(parts) > 0", name=op.f("ck_query_has_parts")),
        sa.ForeignKeyConstraint(
            ["query_set_id"],
            ["query_set.id"],
            name=op.f("fk_query_query_set_id_query_set"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_query")),
        sa.UniqueConstraint(
            "query_set_id", "external_id", name=op.f("uq_query_query_set_id_external_id")
        ),
        comment="One query: ordered typed parts and metadata.",
    )
    op.create_table(
        "item",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("catalog_id", sa.BigInteger(), nullable=False),
        sa.Column("external_id", sa.Text(), nullable=False, comment="The item's id in its source."),
        sa.Column(
            "parts",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=False,
            comment='[{"kind":"text","text":…} | {"kind":"image","uri":…,"sha256":…}, …]',
        ),
        sa.Column(
            "text_hash", sa.LargeBinary(), nullable=True, comment="SHA-256 of the texts alone."
        ),
        sa.Column(
            "image_hash", sa.LargeBinary(), nullable=True, comment="SHA-256 of the images alone."
        ),
        sa.Column(
            "content_hash",
            sa.LargeBinary(),
            nullable=False,
            comment="SHA-256 of all parts in order.",
        ),
        sa.Column(
            "metadata",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default="{}",
            nullable=False,
            comment="What came along; no model sees it.",
        ),
        sa.Column(
            "state",
            sa.Enum(
                "live",
                "gone",
                name="itemstate",
                native_enum=False,
                create_constraint=True,
                length=16,
            ),
            server_default="live",
            nullable=False,
        ),
        sa.Column(
            "import_id", sa.BigInteger(), nullable=True, comment="The import that last saw it."
        ),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.CheckConstraint("jsonb_array_length(parts) > 0", name=op.f("ck_item_has_parts")),
        sa.CheckConstraint("length(external_id) > 0", name=op.f("ck_item_named")),
        sa.ForeignKeyConstraint(
            ["catalog_id"],
            ["catalog.id"],
            name=op.f("fk_item_catalog_id_catalog"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["import_id"],
            ["catalog_import.id"],
            name=op.f("fk_item_import_id_catalog_import"),
            ondelete="SET NULL",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_item")),
        sa.UniqueConstraint(
            "catalog_id", "external_id", name=op.f("uq_item_catalog_id_external_id")
        ),
        comment="One thing of a catalogue: ordered typed parts and metadata.",
    )
    op.create_table(
        "run",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column(
            "kind",
            sa.Enum(
                "index",
                "rerank",
                name="runkind",
                native_enum=False,
                create_constraint=True,
                length=16,
            ),
            nullable=False,
        ),
        sa.Column(
            "state",
            sa.Enum(
                "running",
                "paused",
                "done",
                "failed",
                "cancelled",
                name="runstate",
                native_enum=False,
                create_constraint=True,
                length=16,
            ),
            server_default="running",
            nullable=False,
        ),
        sa.Column(
            "stage",
            sa.Enum(
                "embed",
                "search",
                "score",
                "rank",
                name="stage",
                native_enum=False,
                create_constraint=True,
                length=16,
            ),
            nullable=False,
        ),
        sa.Column("catalog_id", sa.BigInteger(), nullable=False),
        sa.Column("index_id", sa.BigInteger(), nullable=False),
        sa.Column("query_set_id", sa.BigInteger(), nullable=True),
        sa.Column("method", sa.Text(), nullable=True),
        sa.Column("scorer", sa.Text(), nullable=True),
        sa.Column("scorer_fingerprint", sa.Text(), nullable=True),
        sa.Column(
            "params",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=False,
            comment="RunParams, frozen when it was planned.",
        ),
        sa.Column(
            "priority",
            sa.SmallInteger(),
            server_default="5",
            nullable=False,
            comment="0 goes first, 9 last.",
        ),
        sa.Column(
            "plan",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default="{}",
            nullable=False,
            comment="What planning found: items, pairs, groups, reused.",
        ),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(kind = 'index') = (query_set_id IS NULL)", name=op.f("ck_run_rerank_has_queries")
        ),
        sa.CheckConstraint(
            "(kind = 'index') = (scorer_fingerprint IS NULL)", name=op.f("ck_run_rerank_has_scorer")
        ),
        sa.ForeignKeyConstraint(
            ["catalog_id"],
            ["catalog.id"],
            name=op.f("fk_run_catalog_id_catalog"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["index_id"], ["index.id"], name=op.f("fk_run_index_id_index"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["query_set_id"],
            ["query_set.id"],
            name=op.f("fk_run_query_set_id_query_set"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["scorer_fingerprint"],
            ["model.fingerprint"],
            name=op.f("fk_run_scorer_fingerprint_model"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_run")),
        comment="One night's work: an index build or a re-ranking of a query set.",
    )
    op.create_index(op.f("ix_run_state"), "run", ["state"], unique=False)
    op.create_table(
        "calibration",
        sa.Column("run_id", sa.BigInteger(), nullable=False),
        sa.Column("job_id", sa.BigInteger(), nullable=False),
        sa.Column("statistics", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.ForeignKeyConstraint(
            ["run_id"], ["run.id"], name=op.f("fk_calibration_run_id_run"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("run_id", "job_id", name=op.f("pk_calibration")),
        comment="Statistics of one rank job; v_calibration merges them.",
    )
    op.create_table(
        "embedding",
        sa.Column("index_id", sa.BigInteger(), nullable=False),
        sa.Column("item_id", sa.BigInteger(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False, comment="Milvus primary key, 64 hex digits."),
        sa.Column("run_id", sa.BigInteger(), nullable=False, comment="The run that made it."),
        sa.ForeignKeyConstraint(
            ["index_id"], ["index.id"], name=op.f("fk_embedding_index_id_index"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["item_id"], ["item.id"], name=op.f("fk_embedding_item_id_item"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("index_id", "item_id", name=op.f("pk_embedding")),
        comment="The live vector of an item in an index; Milvus holds the numbers.",
    )
    op.create_index("ix_embedding_key", "embedding", ["index_id", "key"], unique=True)
    op.create_table(
        "failure",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("run_id", sa.BigInteger(), nullable=True),
        sa.Column("import_id", sa.BigInteger(), nullable=True),
        sa.Column("query_set_id", sa.BigInteger(), nullable=True),
        sa.Column(
            "stage", sa.Text(), nullable=False, comment="import, embed, search, score or rank"
        ),
        sa.Column(
            "subject_kind",
            sa.Enum(
                "line",
                "item",
                "query",
                "pair",
                "job",
                name="subjectkind",
                native_enum=False,
                create_constraint=True,
                length=16,
            ),
            nullable=False,
        ),
        sa.Column(
            "subject_id",
            sa.Text(),
            nullable=False,
            comment="Line number, external id, or query id → item id.",
        ),
        sa.Column(
            "reason", sa.Text(), nullable=False, comment="Stable code, such as image_unreadable."
        ),
        sa.Column("message", sa.Text(), nullable=False, comment="What happened and what to do."),
        sa.Column(
            "fatal",
            sa.Boolean(),
            server_default=sa.text("true"),
            nullable=False,
            comment="False for a notice, such as a cut text.",
        ),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.CheckConstraint(
            "num_nonnulls(run_id, import_id, query_set_id) = 1",
            name=op.f("ck_failure_belongs_to_one"),
        ),
        sa.ForeignKeyConstraint(
            ["import_id"],
            ["catalog_import.id"],
            name=op.f("fk_failure_import_id_catalog_import"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["query_set_id"],
            ["query_set.id"],
            name=op.f("fk_failure_query_set_id_query_set"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["run_id"], ["run.id"], name=op.f("fk_failure_run_id_run"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_failure")),
        comment="What went wrong, with which thing, and why.",
    )
    op.create_index(op.f("ix_failure_import_id"), "failure", ["import_id"], unique=False)
    op.create_index(op.f("ix_failure_query_set_id"), "failure", ["query_set_id"], unique=False)
    op.create_index(
        "uq_failure_run_subject",
        "failure",
        ["run_id", "stage", "subject_kind", "subject_id"],
        unique=True,
        postgresql_where=sa.text("run_id IS NOT NULL"),
    )
    op.create_table(
        "job",
        sa.Column("run_id", sa.BigInteger(), nullable=False),
        sa.Column("id", sa.BigInteger(), nullable=False, comment="Counts from 1 in each run."),
        sa.Column(
            "stage",
            sa.Enum(
                "embed",
                "search",
                "score",
                "rank",
                name="stage",
                native_enum=False,
                create_constraint=True,
                length=16,
            ),
            nullable=False,
        ),
        sa.Column(
            "state",
            sa.Enum(
                "queued",
                "running",
                "done",
                "failed",
                "split",
                name="jobstate",
                native_enum=False,
                create_constraint=True,
                length=16,
            ),
            server_default="queued",
            nullable=False,
        ),
        sa.Column("queue", sa.Text(), nullable=False, comment="stage, or stage.model fingerprint"),
        sa.Column(
            "payload",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=False,
            comment="Ids of what it works on.",
        ),
        sa.Column("n_units", sa.BigInteger(), nullable=False, comment="Items, queries or pairs."),
        sa.Column("attempt", sa.SmallInteger(), server_default="0", nullable=False),
        sa.Column(
            "token",
            sa.BigInteger(),
            server_default="0",
            nullable=False,
            comment="Fencing token of the last claim.",
        ),
        sa.Column("worker_id", sa.Text(), nullable=True),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "not_before",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column(
            "sent_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="When its doorbell was last rung.",
        ),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("n_failed", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "(state = 'running') = (lease_until IS NOT NULL)", name=op.f("ck_job_lease")
        ),
        sa.CheckConstraint("n_units >= 0 AND attempt >= 0", name=op.f("ck_job_counts")),
        sa.ForeignKeyConstraint(
            ["run_id"], ["run.id"], name=op.f("fk_job_run_id_run"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("run_id", "id", name=op.f("pk_job")),
        comment="A block of work, claimed with a lease and a fencing token.",
        postgresql_partition_by="LIST (run_id)",
    )
    op.create_index(
        "ix_job_leased",
        "job",
        ["lease_until"],
        unique=False,
        postgresql_where=sa.text("state = 'running'"),
    )
    op.create_index("ix_job_progress", "job", ["stage", "state"], unique=False)
    op.create_index(
        "ix_job_waiting",
        "job",
        ["queue", "not_before", "id"],
        unique=False,
        postgresql_where=sa.text("state = 'queued'"),
    )


def downgrade() -> None:
    op.drop_index("ix_job_waiting", table_name="job", postgresql_where=sa.text("state = 'queued'"))
    op.drop_index("ix_job_progress", table_name="job")
    op.drop_index("ix_job_leased", table_name="job", postgresql_where=sa.text("state = 'running'"))
    op.drop_table("job")
    op.drop_index(
        "uq_failure_run_subject",
        table_name="failure",
        postgresql_where=sa.text("run_id IS NOT NULL"),
    )
    op.drop_index(op.f("ix_failure_query_set_id"), table_name="failure")
    op.drop_index(op.f("ix_failure_import_id"), table_name="failure")
    op.drop_table("failure")
    op.drop_index("ix_embedding_key", table_name="embedding")
    op.drop_table("embedding")
    op.drop_table("calibration")
    op.drop_index(op.f("ix_run_state"), table_name="run")
    op.drop_table("run")
    op.drop_table("item")
    op.drop_table("query")
    op.drop_table("qrel")
    op.drop_table("index")
    op.drop_index(op.f("ix_catalog_import_catalog_id"), table_name="catalog_import")
    op.drop_table("catalog_import")
    op.drop_index(op.f("ix_worker_seen_at"), table_name="worker")
    op.drop_table("worker")
    op.drop_index("uq_ranking_item", table_name="ranking")
    op.drop_table("ranking")
    op.drop_table("query_set")
    op.drop_index("ix_pair_score_pair_key", table_name="pair_score")
    op.drop_table("pair_score")
    op.drop_table("model")
    op.drop_table("lease")
    op.drop_table("catalog")
    op.drop_table("candidate")
