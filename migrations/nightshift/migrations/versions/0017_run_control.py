"""The dispatcher's state of a re-ranking run moves from keys of run.plan to columns of run.

`run.plan` keeps what planning counted. Comments say image, never picture.

Revision: 0017, after 0016.
Compatible with workers of the previous release: yes. A dispatcher of the previous release looks
for the state in run.plan: stop it before the upgrade.
"""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

# Table or column, its comment, and the comment before.
_NEW_COMMENTS = (
    (
        "COLUMN run.params",
        "IndexParams, RerankParams or TokenParams, frozen when it was planned.",
        "RunParams, frozen when it was planned.",
    ),
    (
        "TABLE token_set",
        "Visual tokens of a catalogue''s images by one vision tower and codec.",
        "Visual tokens of a catalogue''s pictures by one vision tower and codec.",
    ),
    (
        "COLUMN token_set.catalog_id",
        "The catalogue whose images it covers.",
        "The catalogue whose pictures it covers.",
    ),
    (
        "TABLE token_record",
        "Where the visual tokens of one content''s images lie.",
        "Where the visual tokens of one content''s pictures lie.",
    ),
    (
        "COLUMN token_record.content",
        "image_hash of the items and queries that show these images.",
        "image_hash of the items and queries that show these pictures.",
    ),
    ("COLUMN token_record.n_images", "Images that it holds.", "Pictures that it holds."),
    (
        "COLUMN token_record.n_tokens",
        "Of all its images, before they are reduced.",
        "Of all its pictures, before they are reduced.",
    ),
)

# Copies the keys of a plan into the columns and takes them out of the plan.
_TO_COLUMNS = """
UPDATE run SET
    search_again = coalesce(CAST(plan ->> 'search_again' AS boolean), false),
    embed_rounds = coalesce(CAST(plan ->> 'embed_rounds' AS smallint), 0),
    equal_rounds = coalesce(CAST(plan ->> 'equal_rounds' AS smallint), 0),
    ties_asked = plan ? 'tied',
    plan = plan - 'search_again' - 'embed_rounds' - 'equal_rounds'
WHERE plan ?| ARRAY['search_again', 'embed_rounds', 'equal_rounds', 'tied']
"""

# Puts the columns that differ from their defaults back into the plan.
_TO_PLAN = """
UPDATE run SET plan = plan
    || CASE WHEN search_again THEN jsonb_build_object('search_again', true) ELSE '{}' END
    || CASE WHEN embed_rounds > 0 THEN jsonb_build_object('embed_rounds', embed_rounds)
        ELSE '{}' END
    || CASE WHEN equal_rounds > 0 THEN jsonb_build_object('equal_rounds', equal_rounds)
        ELSE '{}' END
WHERE search_again OR embed_rounds > 0 OR equal_rounds > 0
"""


def upgrade() -> None:
    op.add_column("run", _flag("search_again", _COMMENTS["search_again"]))
    op.add_column("run", _count("embed_rounds", _COMMENTS["embed_rounds"]))
    op.add_column("run", _count("equal_rounds", _COMMENTS["equal_rounds"]))
    op.add_column("run", _flag("ties_asked", _COMMENTS["ties_asked"]))
    op.execute(_TO_COLUMNS)
    for target, comment, _ in _NEW_COMMENTS:
        op.execute(f"COMMENT ON {target} IS '{comment}'")


def downgrade() -> None:
    for target, _, comment in _NEW_COMMENTS:
        op.execute(f"COMMENT ON {target} IS '{comment}'")
    op.execute(_TO_PLAN)
    for name in _COMMENTS:
        op.drop_column("run", name)


_COMMENTS = {
    "search_again": "Vectors were lost while it searched: the search is repeated.",
    "embed_rounds": "How often lost vectors were embedded again.",
    "equal_rounds": "How often another of several equal pairs was given to the scorer.",
    "ties_asked": "Whether the scorer was asked about pairs that tie.",
}


def _flag(name: str, comment: str) -> sa.Column[bool]:
    return sa.Column(
        name, sa.Boolean(), server_default=sa.text("false"), nullable=False, comment=comment
    )


def _count(name: str, comment: str) -> sa.Column[int]:
    return sa.Column(name, sa.SmallInteger(), server_default="0", nullable=False, comment=comment)
