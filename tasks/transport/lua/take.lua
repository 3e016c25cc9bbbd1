-- Take the oldest message of the first queue that has one, and record that the consumer holds it.
--
-- KEYS: queues, in the order in which they are looked at
-- ARGV: consumer number lease_ms
--   number   of this take; the call is repeated with the same number until its answer has been read
--   lease_ms how long the consumer keeps its messages without a sign of life
-- Reply: nothing, or queue and message. The message is held as `<consumer>/<number>`
-- What a blocking move has put into `moving:<consumer>:<queue>` goes first: it is the oldest.
-- A pop is the first write, as it is allowed when memory is full, and all that follows is allowed then.

local consumer, number, lease_ms = ARGV[1], ARGV[2], ARGV[3]
local id = consumer .. '/' .. number
local again = redis.call('HGET', 'unacked', id)
if again then -- taken before, into a connection that was lost
  local length, rest = string.match(again, '^(%d+):()')
  return { string.sub(again, rest, rest + length - 1), string.sub(again, rest + length) }
end
for _, queue in ipairs(KEYS) do
  local message = redis.call('RPOP', 'moving:' .. consumer .. ':' .. queue) or redis.call('RPOP', queue)
  if message then
    redis.call('SADD', 'moving:' .. consumer, queue)
    redis.call('HSET', 'unacked', id, #queue .. ':' .. queue .. message)
    redis.call('SADD', 'unacked:' .. consumer, number)
    local time = redis.call('TIME')
    local now = time[1] * 1000 + math.floor(time[2] / 1000)
    redis.call('ZADD', 'unacked_consumers', 'GT', now + lease_ms, consumer)
    return { queue, message }
  end
end
for _, queue in ipairs(KEYS) do
  if redis.call('SISMEMBER', 'moving:' .. consumer, queue) == 0 then
    redis.call('SADD', 'moving:' .. consumer, queue) -- before the first move from it
  end
end
return false
