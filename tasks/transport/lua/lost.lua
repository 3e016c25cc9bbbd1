-- Consumers whose lease is over.
--
-- KEYS: none
-- ARGV: lease_ms gap_ms most
--   gap_ms  nobody has called this for so long: the server was away or frozen, or all consumers were. Then all leases
--           are over through no fault of their owners, who get the time of a lease to say that they live
-- Reply: at most `most` consumers

local lease_ms, gap_ms, most = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local looked, wait = unpack(redis.call('HMGET', 'unacked_look', 'looked', 'wait'))
wait = tonumber(wait or 0)
if now - tonumber(looked or 0) > gap_ms then wait = now + lease_ms end
redis.call('HSET', 'unacked_look', 'looked', string.format('%.0f', now), 'wait', string.format('%.0f', wait))
if now < wait then return {} end
return redis.call('ZRANGE', 'unacked_consumers', '-inf', string.format('%.0f', now), 'BYSCORE', 'LIMIT', 0, most)
