-- Keep the result of one settled action in the middle of a branch, so that a crash does not run it again.
--
-- ARGV: session unit value day worker action result rows
--   unit, value  the claim, as the fence; both empty for a session that is not open: if it is, others have taken it up
--   action       under which the result is kept; result: JSON; rows: JSON array for the status channel, or ''
-- INCLUDE: time emit
-- Reply: 1 kept, 0 refused: the branch belongs to somebody else
-- Refusals: none
-- Stream: one entry with the rows given

if unit == '' then
  if redis.call('EXISTS', session_key(session), closed_key(session)) > 0 then return 0 end
elseif redis.call('HGET', own_key(session), unit) ~= value then return 0 end
redis.call('HSET', results_key(session), action, result)
if rows ~= '' then emit(session, day, worker, { rows }) end
return 1
