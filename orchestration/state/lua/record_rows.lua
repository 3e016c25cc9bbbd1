-- Send rows of a session that was never opened.
--
-- ARGV: session day worker forget rows
--   forget   1: the checkpoints of the session are not needed any more
-- INCLUDE: time emit
-- Reply: 1
-- Refusals: none
-- Stream: one entry with the rows

emit(session, day, worker, { rows }, {})
if forget == '1' then redis.call('UNLINK', results_key(session)) end
return 1
