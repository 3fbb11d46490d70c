"""The dispatcher's state of a re-ranking run moves from keys of run.plan to columns of run.

`run.plan` keeps what planning counted.

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

_PARAMS_COMMENT = "IndexParams, RerankParams or TokenParams, frozen when it was planned."
_OLD_PARAMS_COMMENT = "RunParams, frozen when it was planned."

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
    op.alter_column("run", "params", comment=_PARAMS_COMMENT, existing_comment=_OLD_PARAMS_COMMENT)


def downgrade() -> None:
    op.alter_column("run", "params", comment=_OLD_PARAMS_COMMENT, existing_comment=_PARAMS_COMMENT)
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
