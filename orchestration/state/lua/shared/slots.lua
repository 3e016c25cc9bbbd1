-- Slots and the order in which sessions get them. At most as many runners are in flight on a queue as workers have
-- registered slots there; all other ready work waits here, in virtual-time order. Needs: time, permits, parked.

local HEAD_START = 250000        -- µs of virtual time by which a new session is ahead (measured: it hides the wait of small runs)
local PUBLISHED_LEASE = 60000000 -- µs after which a runner that was published and never started is given up
local MOST_TURNS = 1000          -- bounds one call; what is left over is handed on by the next one

-- first_vtime: the virtual time at which a session joins; a priority is a larger head start.
local function first_vtime(priority)
  return int(tonumber(redis.call('GET', clock_key()) or '0') - HEAD_START * (1 + priority))
end

-- more_ready_than: whether more than `runners` units are ready on the queue. i:<action> stands for all its unclaimed items.
local function more_ready_than(id, queue, runners)
  local key = ready_key(id, queue)
  local units = redis.call('ZCARD', key)
  if units > runners then return true end
  if units == 0 then return false end
  for _, member in ipairs(redis.call('ZRANGE', key, 0, -1)) do
    if string.sub(member, 1, 2) == 'i:' then
      local f = redis.call('HMGET', items_key(id, string.sub(member, 3)), 'size', 'cursor', 'back')
      units = units - 1 + tonumber(f[1]) - tonumber(f[2]) + tonumber(f[3])
      if units > runners then return true end
    end
  end
  return false
end

-- wants_runner: more units are ready on the queue than runners are on their way, one more may hold a permit (another queue that
-- has the turn keeps one), and in a chord session one is parked.
local function wants_runner(id, queue)
  local fields = redis.call('HMGET', session_key(id), 'status', 'limit', 'pub:' .. queue, 'header', 'turn')
  if fields[1] ~= 'running' then return false end
  if fields[4] and not has_parked(id) then return false end
  local coming = tonumber(fields[3] or '0')
  local kept = fields[5] and fields[5] ~= queue and 1 or 0
  return redis.call('HLEN', own_key(id)) + coming + kept < tonumber(fields[2]) and more_ready_than(id, queue, coming)
end

-- offer: let the session compete for a slot of the queue, if it has use for one. Returns whether it is new among those waiting.
local function offer(id, queue)
  local waiting = waiting_key(queue)
  if redis.call('ZSCORE', waiting, id) or not wants_runner(id, queue) then return false end
  -- a session that used nothing for a while is owed its head start, not all that others used meanwhile
  local vtime = math.max(tonumber(redis.call('HGET', session_key(id), 'vtime')), tonumber(first_vtime(9)))
  redis.call('HSET', session_key(id), 'vtime', int(vtime))
  redis.call('ZADD', waiting, int(vtime), id)
  return true
end

-- register_published: a runner of the session is on its way through the broker, with its first permit: a new one, or in a chord
-- session one that was parked. Returns its id, and the message of the one that was parked.
local function register_published(id, queue, workflow, is_chord)
  local key = session_key(id)
  redis.call('SADD', queues_key(), queue)
  local runner, message
  if is_chord then runner, message = unpark(id)
  else runner, message = id .. '.' .. redis.call('HINCRBY', key, 'rseq', 1), '' end
  redis.call('HINCRBY', key, 'pub:' .. queue, 1)
  redis.call('HSET', runners_key(id), runner, '|1|1')
  redis.call('ZADD', inflight_key(queue), int(now + PUBLISHED_LEASE), runner)
  set_held(workflow, runner, 0, 1)
  return runner, message
end

-- hand_on_queue: give the free slots of a queue to the sessions that wait for it, fairest first. Returns the turns left; every
-- turn publishes, or takes a session out of `waiting`.
local function hand_on_queue(queue, publish, turns)
  local waiting = waiting_key(queue)
  local free = tonumber(redis.call('GET', slots_total_key(queue)) or '0') - redis.call('ZCARD', inflight_key(queue))
  while free > 0 and turns > 0 do
    turns = turns - 1
    local head = redis.call('ZPOPMIN', waiting)
    local id = head[1]
    if not id then break end
    if wants_runner(id, queue) then
      local fields = redis.call('HMGET', session_key(id), 'workflow', 'timeout', 'header')
      local reached = limit_reached(fields[1], 0)
      if reached == 'global' then
        redis.call('ZADD', blocked_global_key(), head[2], queue .. '|' .. id)
      elseif reached then
        redis.call('ZADD', blocked_workflow_key(fields[1]), head[2], queue .. '|' .. id)
      else
        local runner, message = register_published(id, queue, fields[1], fields[3])
        publish[#publish + 1] = id
        publish[#publish + 1] = runner
        publish[#publish + 1] = queue
        publish[#publish + 1] = fields[2]
        publish[#publish + 1] = message
        free = free - 1
        offer(id, queue)
      end
    end
  end
  return turns
end

-- hand_on: give free slots and permits to those that wait for them, on the queues in the list first. Appends session, runner,
-- queue, branch timeout (s), message to `publish` for each runner that the caller must publish.
-- workflow: whose permits may have become free in this call, or nil.
local function hand_on(queues, workflow, publish)
  local turns = MOST_TURNS
  for _, queue in ipairs(queues) do turns = hand_on_queue(queue, publish, turns) end
  local queue = unblock(workflow)
  while queue and turns > 0 do
    turns = hand_on_queue(queue, publish, turns - 1)
    queue = unblock(workflow)
  end
end

-- touch_all: a permit of the session may be free, which work on any of its queues can use.
local function touch_all(queues)
  for queue in string.gmatch(queues, '[^,]+') do touched[queue] = true end
end

-- hand_on_touched: offer the session on all queues where something became ready, and hand on there.
-- freed: whether this call gave a slot or a permit back; if not, only a session that is new among those waiting can get any.
local function hand_on_touched(id, workflow, publish, freed)
  local queues, new = {}, false
  for queue in pairs(touched) do
    if offer(id, queue) then new = true end
    queues[#queues + 1] = queue
  end
  if new or freed then hand_on(queues, workflow, publish) end
end

-- leave: a runner is no more: its permits, slot and registration are given back.
local function leave(id, workflow, runner, queue, worker, held)
  redis.call('HDEL', runners_key(id), runner, runner .. ':call')
  redis.call('ZREM', inflight_key(queue), runner)
  if worker ~= '' then redis.call('SREM', worker_runners_key(worker), queue .. '|' .. runner) end
  set_held(workflow, runner, held, 0)
end

-- charge: the session used `elapsed` µs of a slot; the fleet's clock follows the session that is furthest behind.
-- Returns the session's virtual time.
local function charge(id, queue, elapsed)
  local key = session_key(id)
  local fields = redis.call('HMGET', key, 'vtime', 'weight')
  local vtime = tonumber(fields[1]) + elapsed / tonumber(fields[2])
  redis.call('HSET', key, 'vtime', int(vtime))
  local waiting = waiting_key(queue)
  redis.call('ZADD', waiting, 'XX', int(vtime), id)
  local behind = vtime
  local head = redis.call('ZRANGE', waiting, 0, 0, 'WITHSCORES')
  if head[2] and tonumber(head[2]) < behind then behind = tonumber(head[2]) end
  if behind > tonumber(redis.call('GET', clock_key()) or '0') then redis.call('SET', clock_key(), int(behind)) end
  return vtime
end

-- owed: virtual time by which the first other session that waits for this queue is behind `vtime`, or nil.
local function owed(id, queue, vtime)
  local heads = redis.call('ZRANGE', waiting_key(queue), 0, 1, 'WITHSCORES')
  local place = 1
  if heads[1] == id then place = 3 end
  if not heads[place] then return nil end
  return vtime - tonumber(heads[place + 1])
end
