-- The messages of these sessions are in the hands of a worker that lives: nobody takes them up for so long.
--
-- ARGV: lease sessions*
--   lease   µs
-- INCLUDE: time
-- Reply: 1
-- Refusals: none
-- Stream: nothing

redis.call('ZREMRANGEBYSCORE', held_sessions_key(), '-inf', int(now))
for index = sessions, #ARGV do redis.call('ZADD', held_sessions_key(), int(now + tonumber(lease)), ARGV[index]) end
return 1
