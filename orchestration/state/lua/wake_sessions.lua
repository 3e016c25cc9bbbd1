-- Move deferred units whose time has come back to ready. Stop sessions whose deadline has passed, and complete them again where
-- that was in vain. End turns that are in vain (shared/turn.lua).
--
-- ARGV: most
--   most   units moved in one call
-- INCLUDE: time ready permits parked slots turn emit pause admit stop cancel
-- Reply: runners to publish, and completions of sessions that have ended (session, runner or '', queue, branch timeout, message)*,
--        µs until the next is due (-1: nothing waits for a time), sessions woken*, sessions stopped*
-- Refusals: none
-- Stream: nothing

local COMPLETE_AGAIN = 60000000 -- µs after which a session that is not closed yet is completed again: its completion may be lost

local publish, queues, woken, stopped, left = {}, {}, {}, {}, tonumber(most)
for _, id in ipairs(redis.call('ZRANGEBYSCORE', due_key(), '-inf', int(now), 'LIMIT', 0, 100)) do
  local status = redis.call('HGET', session_key(id), 'status')
  if status and status ~= 'ended' and status ~= 'cancelled' then
    stop(id, 'deadline')
    end_cancelled(id, publish)
    stopped[#stopped + 1] = id
  else
    complete_again(id, publish)
  end
  if status then redis.call('ZADD', due_key(), int(now + COMPLETE_AGAIN), id) else redis.call('ZREM', due_key(), id) end
end
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
local wait = -1
for _, key in ipairs({ delayed_key(), due_key() }) do
  local at = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')[2]
  if at and (wait < 0 or tonumber(at) - now < wait) then wait = math.max(0, tonumber(at) - now) end
end
return { publish, wait, woken, stopped }
