-- Take the oldest message of the first queue that has one, and record that the consumer holds it.
--
-- KEYS: queues, in the order in which they are looked at
-- ARGV: consumer number lease_ms line connection
--   number     of this take; the call is repeated with the same number until its answer has been read
--   lease_ms   how long the consumer keeps its messages without a sign of life
--   line       the queue whose connection this is
--   connection a number that rises: a call that comes late, on a connection which has been given up, takes nothing
-- Reply: nothing, or queue and message. The message is held as `<consumer>/<number>`
-- What a blocking move has put into `moving:<consumer>:<queue>` goes first: it is the oldest.
-- A pop is the first write, as it is allowed when memory is full, and all that follows is allowed then.

local consumer, number, lease_ms, line, connection = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local moving = 'moving:' .. consumer
local known = redis.call('HGET', moving, line)
if known and tonumber(known) > tonumber(connection) then return false end
local id = consumer .. '/' .. number
local again = redis.call('HGET', 'unacked', id)
if again then -- taken before, into a connection that was lost
  local length, rest = string.match(again, '^(%d+):()')
  return { string.sub(again, rest, rest + length - 1), string.sub(again, rest + length) }
end
local found = false
for _, queue in ipairs(KEYS) do
  local message = redis.call('RPOP', moving .. ':' .. queue) or redis.call('RPOP', queue)
  if message then
    redis.call('HSET', 'unacked', id, #queue .. ':' .. queue .. message)
    redis.call('SADD', 'unacked:' .. consumer, number)
    local time = redis.call('TIME')
    local now = time[1] * 1000 + math.floor(time[2] / 1000)
    redis.call('ZADD', 'unacked_consumers', 'GT', now + lease_ms, consumer)
    found = { queue, message }
    break
  end
end
if known ~= connection then redis.call('HSET', moving, line, connection) end
return found
