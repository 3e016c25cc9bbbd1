"""What metrics count, changed in the transactions that change the rows they count: whatever is killed, they agree.

Safe while the code before runs: it leaves the new columns empty, and what it records is not counted.
"""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

CHANGES = """
-- `status` is what a measure is told apart by (store/totals.py), `bucket` the place in its bounds, from 0; -1: not of
-- a duration.
CREATE TABLE metric_totals (
    measure text NOT NULL,
    workflow text NOT NULL,
    action text NOT NULL,
    status text NOT NULL,
    bucket smallint NOT NULL,
    count bigint NOT NULL,
    total numeric NOT NULL,
    began_at timestamptz NOT NULL,
    PRIMARY KEY (measure, workflow, action, status, bucket)
) WITH (fillfactor = 50);

-- What is not in the totals yet: a row for each transaction, so that none waits for another.
CREATE TABLE metric_changes (
    measures text[] NOT NULL,
    workflows text[] NOT NULL,
    actions text[] NOT NULL,
    statuses text[] NOT NULL,
    buckets smallint[] NOT NULL,
    counts bigint[] NOT NULL,
    totals bigint[] NOT NULL,
    began_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Not compressed: they are gone in seconds.
ALTER TABLE metric_changes
    ALTER measures SET STORAGE EXTERNAL, ALTER workflows SET STORAGE EXTERNAL, ALTER actions SET STORAGE EXTERNAL,
    ALTER statuses SET STORAGE EXTERNAL, ALTER buckets SET STORAGE EXTERNAL, ALTER counts SET STORAGE EXTERNAL,
    ALTER totals SET STORAGE EXTERNAL;

CREATE VIEW metric_counts AS
SELECT measure, workflow, action, status, bucket, count, total, began_at FROM metric_totals
UNION ALL
SELECT measure, workflow, action, status, bucket, count, total, began_at
FROM metric_changes, unnest(measures, workflows, actions, statuses, buckets, counts, totals)
    AS one (measure, workflow, action, status, bucket, count, total);

-- What a row was before its last change: the statement that changes it counts the difference.
ALTER TABLE tasks ADD COLUMN previous_status text, ADD COLUMN previous_attempt integer;
ALTER TABLE branches ADD COLUMN previous_status text;
"""


def upgrade() -> None:
    op.execute(CHANGES)


def downgrade() -> None:
    op.execute("ALTER TABLE branches DROP COLUMN previous_status")
    op.execute("ALTER TABLE tasks DROP COLUMN previous_status, DROP COLUMN previous_attempt")
    op.execute("DROP VIEW metric_counts")
    op.execute("DROP TABLE metric_changes")
    op.execute("DROP TABLE metric_totals")
