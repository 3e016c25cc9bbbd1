"""Which run was retried as which: each of the two names the other.

Safe while the code before runs: it leaves the new columns empty.
"""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # `retry_of`: the run that this one is a retry of; `retried_as`: its only retry. Both are ids of flow sessions.
    op.execute("ALTER TABLE flow_sessions ADD COLUMN retry_of text, ADD COLUMN retried_as text")


def downgrade() -> None:
    op.execute("ALTER TABLE flow_sessions DROP COLUMN retry_of, DROP COLUMN retried_as")
