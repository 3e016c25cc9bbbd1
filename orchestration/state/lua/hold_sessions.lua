-- The messages of these sessions are in the hands of a worker that lives: nobody takes them up for so long.
--
-- ARGV: lease worker holder_lease most sessions*
--   lease         µs
--   worker        its name; deliveries that are at work in it stay so
--   holder_lease  ms
--   most          so many of `sessions` are held; the others were, when this worker called before
-- INCLUDE: time held
-- Reply: 1
-- Refusals: none
-- Stream: nothing

redis.call('ZREMRANGEBYSCORE', held_sessions_key(), '-inf', int(now))
for index = sessions, #ARGV do
  local session = ARGV[index]
  if index < sessions + tonumber(most) then
    redis.call('ZADD', held_sessions_key(), int(now + tonumber(lease)), session)
    local key = holder_key(session)
    if string.sub(redis.call('GET', key) or '', 1, #worker) == worker then redis.call('PEXPIRE', key, holder_lease) end
  else redis.call('ZREM', held_sessions_key(), session) end
end
expire_held()
return 1
