-- The consumer lives: what it holds stays with it.
--
-- KEYS: none
-- ARGV: consumer lease_ms

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZADD', 'unacked_consumers', 'GT', now + ARGV[2], ARGV[1])
