"""What is needed to take a flow session up again when Redis has lost it: its caller, that it was cancelled, the epoch.

Safe while the code before runs: it leaves the new columns empty, and sessions without them are not taken up.
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

CHANGES = """
-- `call`: the namespace, and what followed the message that started it: queue, links, chain, group, chord. JSON, as
-- tasks/canvas.py makes it.
ALTER TABLE flow_sessions ADD COLUMN call json, ADD COLUMN cancelled_at timestamptz;

-- The life of live state that is valid in each namespace, and since when.
CREATE TABLE live_state_epochs (
    namespace text PRIMARY KEY,
    epoch bigint NOT NULL,
    began_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
"""


def upgrade() -> None:
    op.execute(CHANGES)


def downgrade() -> None:
    op.execute("DROP TABLE live_state_epochs")
    op.execute("ALTER TABLE flow_sessions DROP COLUMN call, DROP COLUMN cancelled_at")
