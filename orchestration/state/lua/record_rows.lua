-- Send rows of a session that was never opened.
--
-- ARGV: session day worker rows
-- INCLUDE: time emit
-- Reply: 1, or 0: the session was cancelled meanwhile
-- Refusals: none
-- Stream: one entry with the rows

emit(session, day, worker, { rows })
return 1 - redis.call('EXISTS', cancelled_key(session))
