"""Runs that did not succeed are found by status, the newest first, among millions that did.

Safe while the code before runs. Runs that succeed have no entry in the index.
"""

from alembic import op

revision = "0006"
down_revision = "0002"
branch_labels = None
depends_on = None

CHANGES = """
CREATE INDEX flow_sessions_unsuccessful ON flow_sessions (status, created_at DESC, flow_session_id DESC)
    WHERE status IN ('failed', 'cancelled', 'timed_out');
"""


def upgrade() -> None:
    op.execute(CHANGES)


def downgrade() -> None:
    op.execute("DROP INDEX flow_sessions_unsuccessful")
