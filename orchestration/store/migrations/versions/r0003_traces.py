"""The trace that a flow session belongs to, so that whoever takes it up goes on with it.

Safe while the code before runs: it leaves the new column empty, and sessions without it have no spans.
"""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # W3C `traceparent`, of the caller's span or of the session's own root span.
    op.execute("ALTER TABLE flow_sessions ADD COLUMN traceparent text")


def downgrade() -> None:
    op.execute("ALTER TABLE flow_sessions DROP COLUMN traceparent")
