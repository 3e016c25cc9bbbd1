"""What share of the slots two sessions had beside each other."""

#: Slot time of each in the time in which both had more to do, and how long that was.
SHARES = """
WITH whole AS (SELECT flow_session_id, min(started_at) AS first, max(finished_at) AS last FROM tasks
               WHERE flow_session_id = ANY (%s) AND item >= 0 GROUP BY 1),
     common AS (SELECT max(first) + make_interval(secs => %s) AS first, min(last) AS last FROM whole)
SELECT flow_session_id::text,
       EXTRACT(epoch FROM sum(least(finished_at, common.last) - greatest(started_at, common.first))),
       EXTRACT(epoch FROM max(common.last) - max(common.first))
FROM tasks, common
WHERE flow_session_id = ANY (%s) AND item >= 0 AND finished_at > common.first AND started_at < common.last
GROUP BY 1
"""
