-- Send rows that no other script sends.
--
-- ARGV: session day worker alone rows
--   alone   1: they are of a session that was never opened; if it was, others have taken it up, and nothing is sent
-- INCLUDE: time emit
-- Reply: 1, or 0: the session was cancelled meanwhile, or was opened
-- Refusals: none
-- Stream: one entry with the rows

if alone == '1' and redis.call('EXISTS', session_key(session), closed_key(session)) > 0 then return 0 end
emit(session, day, worker, { rows })
return 1 - redis.call('EXISTS', cancelled_key(session))
