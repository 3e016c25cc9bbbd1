"""What the pages need: runs that did not succeed, by status, among millions that did; how the fleet was, over a day.

Safe while the code before runs. Runs that succeed have no entry in the index.
"""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

CHANGES = """
CREATE INDEX flow_sessions_unsuccessful ON flow_sessions (status, created_at DESC, flow_session_id DESC)
    WHERE status IN ('failed', 'cancelled', 'timed_out');

-- One row each ten seconds, whoever of the fleet makes it; numbers of all that has ended are of all time, so that two
-- rows tell what was between them (orchestration/store/samples.py).
CREATE TABLE fleet_samples (
    namespace text NOT NULL,
    sampled_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended bigint NOT NULL,
    failed bigint NOT NULL,
    retried bigint NOT NULL,
    runs bigint NOT NULL,
    waits bigint[] NOT NULL,
    permits integer NOT NULL,
    slots integer NOT NULL,
    workers integer NOT NULL,
    waiting integer NOT NULL,
    entries bigint NOT NULL,
    lag_seconds real NOT NULL
);
CREATE INDEX fleet_samples_by_time ON fleet_samples (namespace, sampled_at);
"""


def upgrade() -> None:
    op.execute(CHANGES)


def downgrade() -> None:
    op.execute("DROP TABLE fleet_samples")
    op.execute("DROP INDEX flow_sessions_unsuccessful")
