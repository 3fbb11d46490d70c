"""Scores that the model writes: no logits to keep, but the words.

Revision: 0007, after 0006.
Compatible with workers of the previous release: yes; what they write has logits and no words.
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_LOGITS = ("logit_positive", "logit_negative", "logsumexp", "entropy")

# By column: comment after and before.
_COMMENTS = {
    "pair_key": (
        "SHA-256 of scorer fingerprint, query and item content, and list if it is of one.",
        "SHA-256 of scorer fingerprint, query content and item content.",
    ),
    "margin": (
        "Log-odds: positive label''s logit minus the negative''s, or as the score says.",
        "Log-odds: positive label''s logit minus the negative''s.",
    ),
    "logit_positive": (
        "This and the next three are empty where the model wrote the score.",
        None,
    ),
    "entropy": (
        "Nats, over the whole vocabulary; of a second question where scores tied.",
        "Nats, over the whole vocabulary.",
    ),
}


def upgrade() -> None:
    for column in _LOGITS:
        op.alter_column("pair_score", column, nullable=True)
    op.add_column(
        "pair_score",
        sa.Column(
            "written",
            sa.Text(),
            nullable=True,
            comment="What the model wrote, where that is the score.",
        ),
    )
    _comment(after=True)


def downgrade() -> None:
    op.execute("DELETE FROM pair_score WHERE logit_positive IS NULL")
    op.drop_column("pair_score", "written")
    for column in _LOGITS:
        op.alter_column("pair_score", column, nullable=False)
    _comment(after=False)


def _comment(*, after: bool) -> None:
    for column, (new, old) in _COMMENTS.items():
        chosen = new if after else old
        quoted = f"'{chosen}'" if chosen else "NULL"
        op.execute(f"COMMENT ON COLUMN pair_score.{column} IS {quoted}")
