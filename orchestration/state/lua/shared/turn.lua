-- Order between the queues of a session that is at its own limit. A permit is for the queue whose runner asks, so that it goes
-- from branch to branch at no cost; but work of another queue that has waited longer has the next one: its *turn*. The field
-- `turn` of the session names that queue: runners of others leave one permit alone (claims here, wants_runner in slots), until
-- a runner of that queue has claimed. Needs: time, ready, slots.

local TURN_AFTER = 250000    -- µs by which the other's oldest unit must be older, or runners would be swapped for each branch
local KEEP_AFTER = 10000000  -- the same where that queue has no free slot: until it has one, a permit is kept for it unused

-- oldest_ready: µs at which the oldest unit that is ready on a queue became so, or nil.
local function oldest_ready(id, queue)
  return tonumber(redis.call('ZRANGE', ready_key(id, queue), 0, 0, 'WITHSCORES')[2])
end

-- give_turn: the queue whose oldest unit goes before those of `queue`, if there is one: it has the turn from now on.
local function give_turn(id, queue, queues)
  local own = oldest_ready(id, queue)
  if not own then return nil end
  local first, first_at
  for other in string.gmatch(queues, '[^,]+') do
    local at = other ~= queue and oldest_ready(id, other)
    if at and at <= own - TURN_AFTER and at < (first_at or math.huge) then
      local slots = tonumber(redis.call('GET', slots_total_key(other)) or '0')
      local coming = tonumber(redis.call('HGET', session_key(id), 'pub:' .. other) or '0')
      local is_free = coming > 0 or redis.call('ZCARD', inflight_key(other)) < slots
      if slots > 0 and (is_free or at <= own - KEEP_AFTER) then first, first_at = other, at end
    end
  end
  if first then
    redis.call('HSET', session_key(id), 'turn', first)
    redis.call('ZADD', turns_key(), int(now), id)
  end
  return first
end

-- end_turn: no permit is kept for another queue any more.
local function end_turn(id)
  redis.call('HDEL', session_key(id), 'turn')
  redis.call('ZREM', turns_key(), id)
end

-- is_turn_over: nothing is ready on the queue that has the turn, or no worker serves it any more.
local function is_turn_over(id, turn)
  return redis.call('EXISTS', ready_key(id, turn)) == 0 or tonumber(redis.call('GET', slots_total_key(turn)) or '0') < 1
end
