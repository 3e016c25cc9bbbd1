"""The first schema: workflows and their versions, flow sessions, branches, tasks, large results, dead letters.

Everything of a run is partitioned by the UTC day on which its flow session was accepted (`session_day`), so that
retention drops whole partitions; rows of a day without a partition go to the DEFAULT one.
"""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE workflows (
    name text PRIMARY KEY,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE TABLE workflow_versions (
    version_id text PRIMARY KEY,
    workflow text NOT NULL REFERENCES workflows (name),
    number integer NOT NULL,
    definition json NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_used_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    published_at timestamptz,
    UNIQUE (workflow, number)
);
CREATE INDEX workflow_versions_published ON workflow_versions (workflow, published_at DESC)
    WHERE published_at IS NOT NULL;

-- Makes a flow session's id unique over all days, and finds its day without a look into every partition.
CREATE TABLE session_days (
    flow_session_id text PRIMARY KEY,
    session_day date NOT NULL
);
CREATE INDEX session_days_by_day ON session_days (session_day);

CREATE TABLE flow_sessions (
    session_day date NOT NULL,
    flow_session_id text NOT NULL,
    workflow text NOT NULL,
    version_id text NOT NULL REFERENCES workflow_versions (version_id),
    version integer NOT NULL,
    status text NOT NULL CHECK (status IN ('queued', 'running', 'suspended', 'paused', 'succeeded', 'failed',
                                           'cancelled', 'timed_out')),
    sequence bigint NOT NULL DEFAULT 0,
    priority integer NOT NULL DEFAULT 0,
    payload json,
    output json,
    error json,
    counts json,
    celery_task_id text,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    started_at timestamptz,
    finished_at timestamptz,
    PRIMARY KEY (session_day, flow_session_id)
) PARTITION BY RANGE (session_day);
CREATE INDEX flow_sessions_by_age ON flow_sessions (created_at DESC, flow_session_id DESC);
CREATE INDEX flow_sessions_by_workflow ON flow_sessions (workflow, created_at DESC, flow_session_id DESC);
CREATE INDEX flow_sessions_by_version ON flow_sessions (version_id);
CREATE INDEX flow_sessions_unfinished ON flow_sessions (status, created_at DESC)
    WHERE status IN ('queued', 'running', 'suspended', 'paused');

CREATE TABLE branches (
    session_day date NOT NULL,
    flow_session_id text NOT NULL,
    branch text NOT NULL,
    status text NOT NULL,
    attempt integer NOT NULL,
    sequence bigint NOT NULL,
    queue text,
    worker text,
    started_at timestamptz,
    finished_at timestamptz,
    waited_us bigint,
    PRIMARY KEY (session_day, flow_session_id, branch)
) PARTITION BY RANGE (session_day);

CREATE TABLE tasks (
    session_day date NOT NULL,
    flow_session_id text NOT NULL,
    action text NOT NULL,
    item integer NOT NULL DEFAULT -1,
    status text NOT NULL,
    attempt integer NOT NULL,
    sequence bigint NOT NULL,
    queue text,
    worker text,
    started_at timestamptz,
    finished_at timestamptz,
    result json,
    error json,
    PRIMARY KEY (session_day, flow_session_id, action, item)
) PARTITION BY RANGE (session_day);
-- How far a run is, without a walk over the items of its `for_each`.
CREATE INDEX tasks_of_actions ON tasks (session_day, flow_session_id, action) WHERE item = -1;

CREATE TABLE task_results (
    session_day date NOT NULL,
    flow_session_id text NOT NULL,
    action text NOT NULL,
    item integer NOT NULL DEFAULT -1,
    attempt integer NOT NULL,
    content bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (session_day, flow_session_id, action, item)
) PARTITION BY RANGE (session_day);

CREATE TABLE flow_sessions_default PARTITION OF flow_sessions DEFAULT;
CREATE TABLE branches_default PARTITION OF branches DEFAULT;
CREATE TABLE tasks_default PARTITION OF tasks DEFAULT;
CREATE TABLE task_results_default PARTITION OF task_results DEFAULT;

-- What could not be written elsewhere, with the reason; nothing of the status channel is ever thrown away.
CREATE TABLE status_dead_letters (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    received_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    source text NOT NULL,
    flow_session_id text,
    reason text NOT NULL,
    content bytea NOT NULL
);
CREATE INDEX status_dead_letters_by_age ON status_dead_letters (received_at);
"""


def upgrade() -> None:
    op.execute(TABLES)


def downgrade() -> None:
    op.execute(
        "DROP TABLE status_dead_letters, task_results, tasks, branches, flow_sessions, session_days,"
        " workflow_versions, workflows"
    )
