-- Put a held message back at the head of the queue that it came from.
--
-- KEYS: none
-- ARGV: consumer number message only_lost
--   message   its text now: marked as one that comes again
--   only_lost 1: not while the consumer's lease holds
-- Reply: 1, or 0 if the consumer does not hold it (any more), or its lease holds

local consumer, number, message, only_lost = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local id = consumer .. '/' .. number
local held = redis.call('HGET', 'unacked', id)
if not held then return 0 end
if only_lost == '1' then
  local time = redis.call('TIME')
  local lease = redis.call('ZSCORE', 'unacked_consumers', consumer)
  if lease and tonumber(lease) > time[1] * 1000 + math.floor(time[2] / 1000) then return 0 end
end
local length, rest = string.match(held, '^(%d+):()')
redis.call('HDEL', 'unacked', id) -- first, as it is allowed when memory is full; then the rest is
redis.call('SREM', 'unacked:' .. consumer, number)
redis.call('RPUSH', string.sub(held, rest, rest + length - 1), message)
return 1
