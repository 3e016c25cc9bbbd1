-- Move deferred units whose time has come back to ready. Stop sessions whose deadline has passed, or that were queued for too long.
-- Find branches that have waited too long. End turns that are in vain (shared/turn.lua).
--
-- ARGV: most
--   most   units moved in one call
-- INCLUDE: time ready permits parked slots turn claim emit pause admit stop cancel overdue
-- Reply: runners to publish, and completions of sessions that have ended (session, runner or '', queue, branch timeout, message)*,
--        µs until the next is due (-1: nothing waits for a time), sessions woken*, sessions stopped*, branches that have waited too
--        long and are to be settled by settle_overdue (session, version, day, queue, unit, value, predecessors, what for)*
-- Refusals: none
-- Stream: nothing

local SETTLE_AGAIN = 1000000 -- µs after which branches that were overdue and are not settled yet are told again
local MOST_OVERDUE = 800 -- values in one reply

local publish, queues, woken, stopped, overdue, left = {}, {}, {}, {}, {}, tonumber(most)
local function end_early(id, why)
  stop(id, why)
  end_cancelled(id, publish)
  stopped[#stopped + 1] = id
end

-- look: end what of a session is to be ended by now. Returns when to look again, in µs, or nil.
local function look(id)
  local f = redis.call('HMGET', session_key(id), 'status', 'deadline', 'max_wait', 'workflow', 'key')
  if not f[1] or f[1] == 'ended' or f[1] == 'cancelled' then return nil end
  local again = tonumber(f[2] or 'inf')
  if again <= now then return end_early(id, 'deadline') end
  if f[3] and f[1] == 'queued' then
    local expires = tonumber(redis.call('ZSCORE', sessions_open_key(), id)) + tonumber(f[3])
    if expires <= now then return end_early(id, 'wait - ' .. waiting_at(id, f[4], f[5])) end
    again = math.min(again, expires)
  elseif f[3] and f[1] == 'running' then
    local before = #overdue
    again = math.min(again, overdue_of(id, overdue, MOST_OVERDUE) or math.huge)
    if #overdue > before then again = math.min(again, now + SETTLE_AGAIN) end
  elseif f[3] then
    again = math.min(again, now + tonumber(f[3])) -- paused: its branches may not begin
  end
  return again < math.huge and again or nil
end

for _, id in ipairs(redis.call('ZRANGEBYSCORE', due_key(), '-inf', int(now), 'LIMIT', 0, 100)) do
  local again = look(id)
  if again then redis.call('ZADD', due_key(), int(again), id) else redis.call('ZREM', due_key(), id) end
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
return { publish, wait, woken, stopped, overdue }
