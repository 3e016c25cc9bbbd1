-- The messages of these sessions are in the hands of a worker that lives: nobody takes them up for so long.
--
-- ARGV: lease most sessions*
--   lease     µs
--   most      so many of `sessions` are held; the others were, when this worker called before
-- INCLUDE: time held
-- Reply: 1
-- Refusals: none
-- Stream: nothing

redis.call('ZREMRANGEBYSCORE', held_sessions_key(), '-inf', int(now))
for index = sessions, #ARGV do
  if index < sessions + tonumber(most) then redis.call('ZADD', held_sessions_key(), int(now + tonumber(lease)), ARGV[index])
  else redis.call('ZREM', held_sessions_key(), ARGV[index]) end
end
expire_held()
return 1
