-- The messages of these sessions are in the hands of a worker that lives: nobody takes them up for so long.
--
-- ARGV: lease worker holder_lease tasks most ids*
--   lease         µs
--   worker        its name; deliveries that are at work in it stay so
--   holder_lease  ms
--   tasks, most   `ids` are so many tasks that are at work in it, so many sessions that it holds, and then those
--                 that it held when it called before
-- INCLUDE: time held
-- Reply: 1
-- Refusals: none
-- Stream: nothing

redis.call('ZREMRANGEBYSCORE', held_sessions_key(), '-inf', int(now))
local sessions = ids + tonumber(tasks)
for index = ids, sessions - 1 do
  local key = holder_key(ARGV[index])
  if string.sub(redis.call('GET', key) or '', 1, #worker) == worker then redis.call('PEXPIRE', key, holder_lease) end
end
for index = sessions, #ARGV do
  if index < sessions + tonumber(most) then redis.call('ZADD', held_sessions_key(), int(now + tonumber(lease)), ARGV[index])
  else redis.call('ZREM', held_sessions_key(), ARGV[index]) end
end
expire_held()
return 1
