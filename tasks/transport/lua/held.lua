-- What a consumer holds. What a blocking move has left for it, and no take has recorded, goes back to its queue first.
--
-- KEYS: none
-- ARGV: consumer most
-- Reply: number, message of at most `most`; none: there is nothing more, and the consumer is forgotten

local consumer, most = ARGV[1], tonumber(ARGV[2])
local held = {}
for _, queue in ipairs(redis.call('HKEYS', 'moving:' .. consumer)) do
  local moving = 'moving:' .. consumer .. ':' .. queue
  for _ = 1, redis.call('LLEN', moving) do
    local message = redis.call('LPOP', moving) -- first, as it is allowed when memory is full
    redis.call('RPUSH', queue, message)
  end
end
redis.call('DEL', 'moving:' .. consumer)
for _, number in ipairs(redis.call('SRANDMEMBER', 'unacked:' .. consumer, most)) do
  local value = redis.call('HGET', 'unacked', consumer .. '/' .. number)
  if value then
    local length, rest = string.match(value, '^(%d+):()')
    held[#held + 1] = number
    held[#held + 1] = string.sub(value, rest + length)
  else
    redis.call('SREM', 'unacked:' .. consumer, number)
  end
end
if #held == 0 then redis.call('ZREM', 'unacked_consumers', consumer) end
return held
