-- Move deferred units whose time has come back to ready. End turns that are in vain (shared/turn.lua).
--
-- ARGV: most
--   most   units moved in one call
-- INCLUDE: time ready permits parked slots turn
-- Reply: runners to publish (session, runner, queue, branch timeout, message)*, µs until the next unit is due (-1: none), sessions woken*
-- Refusals: none
-- Stream: nothing

local publish, queues, woken, left = {}, {}, {}, tonumber(most)
for _, id in ipairs(redis.call('ZRANGEBYSCORE', delayed_key(), '-inf', int(now), 'LIMIT', 0, left)) do
  if left <= 0 then break end
  touched = {}
  woken[#woken + 1] = id
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', deferred_key(id), '-inf', int(now), 'LIMIT', 0, left)) do
    redis.call('ZREM', deferred_key(id), member)
    local unit, attempt, count, retry, queue = string.match(member, '^(.*)|(%d+)|(%d+)|(%d+)|([^|]*)$')
    put_back(id, queue, unit, attempt, count, retry, int(now))
    left = left - 1
  end
  local first = redis.call('ZRANGE', deferred_key(id), 0, 0, 'WITHSCORES')
  if first[2] then redis.call('ZADD', delayed_key(), first[2], id) else redis.call('ZREM', delayed_key(), id) end
  for queue in pairs(touched) do
    offer(id, queue)
    queues[#queues + 1] = queue
  end
end
for _, id in ipairs(redis.call('ZRANGE', turns_key(), 0, 99)) do
  local f = redis.call('HMGET', session_key(id), 'turn', 'queues')
  if not f[1] or is_turn_over(id, f[1]) then
    end_turn(id)
    for queue in string.gmatch(f[2] or '', '[^,]+') do
      if offer(id, queue) then queues[#queues + 1] = queue end
    end
  end
end
hand_on(queues, publish)
local due = redis.call('ZRANGE', delayed_key(), 0, 0, 'WITHSCORES')
local wait = -1
if due[2] then wait = math.max(0, tonumber(due[2]) - now) end
return { publish, wait, woken }
