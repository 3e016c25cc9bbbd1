-- Of sessions that have not ended, find those that have no live state and whose message nobody holds; the caller holds it from
-- now on, and publishes it again. Those whose queue no worker serves are left for later.
--
-- ARGV: epoch lease lost*
--   epoch   that PostgreSQL knows: in any other, nothing here says what is lost
--   lease   µs until such a session is found again
--   lost    (session, queue)*
-- INCLUDE: time held
-- Reply: sessions*, or nil: Redis is not in this epoch
-- Refusals: none
-- Stream: nothing

if redis.call('GET', epoch_key()) ~= epoch then return false end
redis.call('ZREMRANGEBYSCORE', held_sessions_key(), '-inf', int(now))
local found = {}
for index = lost, #ARGV, 2 do
  local id, served = ARGV[index], tonumber(redis.call('GET', slots_total_key(ARGV[index + 1])) or '0') > 0
  if served and redis.call('EXISTS', session_key(id)) == 0
    and redis.call('ZADD', held_sessions_key(), 'NX', int(now + tonumber(lease)), id) == 1 then
    found[#found + 1] = id
  end
end
expire_held()
return found
