-- A message needs no more work: forget it.
--
-- KEYS: none
-- ARGV: consumer number
-- Reply: 1, or 0 if the consumer does not hold it (any more)

local consumer, number = ARGV[1], ARGV[2]
redis.call('SREM', 'unacked:' .. consumer, number)
return redis.call('HDEL', 'unacked', consumer .. '/' .. number)
