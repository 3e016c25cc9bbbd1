-- A runner begins nothing more of what it has claimed of a session that was cancelled, or whose deadline has passed: whoever
-- cancels waits for this. One that is late and finds the session closed leaves nothing behind.
--
-- ARGV: session life seconds
--   seconds  how long it is kept, should nobody close the session
-- INCLUDE:
-- Reply: 1, or 0: the session goes on, or was closed
-- Refusals: none
-- Stream: nothing

-- one in its first branch has the mark only, one at its deadline the field only
if redis.call('EXISTS', cancelled_key(session)) == 0 and redis.call('HEXISTS', session_key(session), 'cancelled') == 0 then
  return 0
end
redis.call('SADD', heeded_key(session), life)
redis.call('EXPIRE', heeded_key(session), seconds)
return 1
