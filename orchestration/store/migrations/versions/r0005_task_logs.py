"""What tasks log, kept with them; partitioned by day and dropped like everything of a run.

Safe while the code before runs: it does not know the table. Days that have partitions get one for it when upkeep next
looks, within the hour; until then lines go to the DEFAULT partition.
"""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

CHANGES = """
-- Not an identity: partitions are made as tables of their own and attached.
CREATE SEQUENCE task_log_ids;
CREATE TABLE task_logs (
    session_day date NOT NULL,
    flow_session_id text NOT NULL,
    id bigint NOT NULL DEFAULT nextval('task_log_ids'),
    action text NOT NULL,
    item integer NOT NULL,
    attempt integer NOT NULL,
    logged_at timestamptz NOT NULL,
    level text NOT NULL,
    logger text NOT NULL,
    message text NOT NULL,
    fields json,
    PRIMARY KEY (session_day, flow_session_id, id)
) PARTITION BY RANGE (session_day);
CREATE INDEX task_logs_by_time ON task_logs (session_day, flow_session_id, logged_at, id);
CREATE INDEX task_logs_of_tasks ON task_logs (session_day, flow_session_id, action, item, logged_at, id);
CREATE TABLE task_logs_default PARTITION OF task_logs DEFAULT;
"""


def upgrade() -> None:
    op.execute(CHANGES)


def downgrade() -> None:
    op.execute("DROP TABLE task_logs")
    op.execute("DROP SEQUENCE task_log_ids")
