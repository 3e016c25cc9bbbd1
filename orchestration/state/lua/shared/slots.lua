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

-- wants_runner: its deadline has not passed, more units are ready on the queue than runners are on their way, one more may hold a permit (another queue that
-- has the turn keeps one), and in a chord session one is parked. Returns also since when it waits there for a limit, if it does.
local function wants_runner(id, queue)
  local fields = redis.call('HMGET', session_key(id), 'status', 'limit', 'pub:' .. queue, 'header', 'blocked:' .. queue, 'turn', 'deadline')
  if fields[1] ~= 'running' or fields[7] and now >= tonumber(fields[7]) then return false, fields[5] end
  if fields[4] and not has_parked(id) then return false, fields[5] end
  local coming = tonumber(fields[3] or '0')
  local kept = fields[6] and fields[6] ~= queue and 1 or 0
  local is_free = redis.call('HLEN', own_key(id)) + coming + kept < tonumber(fields[2])
  return is_free and more_ready_than(id, queue, coming), fields[5]
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

-- withdraw: the session competes for no slot and no permit any more.
local function withdraw(id, queues, levels)
  for queue in string.gmatch(queues, '[^,]+') do
    redis.call('ZREM', waiting_key(queue), id)
    for _, level in ipairs(levels) do redis.call('ZREM', blocked_key(level), queue .. '|' .. id) end
    redis.call('HDEL', session_key(id), 'blocked:' .. queue)
  end
end

-- register_published: a runner of the session is on its way through the broker, with its first permit: a new one, or in a chord
-- session one that was parked. Returns its id, and the message of the one that was parked.
local function register_published(id, queue, levels, is_chord)
  local key = session_key(id)
  redis.call('SADD', queues_key(), queue)
  local runner, message
  if is_chord then runner, message = unpark(id)
  else runner, message = id .. '.' .. redis.call('HINCRBY', key, 'rseq', 1), '' end
  redis.call('HINCRBY', key, 'pub:' .. queue, 1)
  redis.call('HSET', runners_key(id), runner, '|1|1')
  redis.call('ZADD', inflight_key(queue), int(now + PUBLISHED_LEASE), runner)
  set_held(levels, runner, 0, 1)
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
    local is_wanted, since = wants_runner(id, queue)
    local reached = nil
    if is_wanted then
      local fields = redis.call('HMGET', session_key(id), 'workflow', 'timeout', 'header', 'key')
      local levels = levels_of(fields[1], fields[4])
      reached = limit_reached(levels, 0)
      if reached then
        redis.call('ZADD', blocked_key(reached), head[2], queue .. '|' .. id)
        redis.call('HSETNX', session_key(id), 'blocked:' .. queue, int(now))
      else
        local runner, message = register_published(id, queue, levels, fields[3])
        publish[#publish + 1] = id
        publish[#publish + 1] = runner
        publish[#publish + 1] = queue
        publish[#publish + 1] = fields[2]
        publish[#publish + 1] = message
        free = free - 1
        offer(id, queue)
      end
    end
    if since and not reached then redis.call('HDEL', session_key(id), 'blocked:' .. queue) end
  end
  return turns
end

-- hand_on: give free slots and permits to those that wait for them: for the permits that became free in this call, then on
-- the queues in the list. Appends session, runner, queue, branch timeout (s), message to `publish` for each runner that the
-- caller must publish.
local function hand_on(queues, publish)
  local turns = MOST_TURNS
  local queue = unblock()
  while queue do
    turns = hand_on_queue(queue, publish, turns - 1)
    if turns <= 0 then break end
    queue = unblock()
  end
  for level in pairs(roomy) do redis.call('SADD', unfinished_key(), level) end
  for _, name in ipairs(queues) do turns = hand_on_queue(name, publish, turns) end
end

-- touch_all: a permit of the session may be free, which work on any of its queues can use.
local function touch_all(queues)
  for queue in string.gmatch(queues, '[^,]+') do touched[queue] = true end
end

-- hand_on_touched: offer the session on all queues where something became ready, and hand on there.
-- freed: whether this call gave a slot or a permit back; if not, only a session that is new among those waiting can get any.
local function hand_on_touched(id, publish, freed)
  local queues, new = {}, false
  for queue in pairs(touched) do
    if offer(id, queue) then new = true end
    queues[#queues + 1] = queue
  end
  if new or freed then hand_on(queues, publish) end
end

-- leave: a runner is no more: its permits, slot and registration are given back.
local function leave(id, levels, runner, queue, worker, held)
  redis.call('HDEL', runners_key(id), runner, runner .. ':call')
  redis.call('ZREM', inflight_key(queue), runner)
  if worker ~= '' then redis.call('SREM', worker_runners_key(worker), queue .. '|' .. runner) end
  set_held(levels, runner, held, 0)
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

-- owed: virtual time by which the first other session that waits for this queue, or for a permit of these levels, is behind
-- `vtime`, or nil.
local function owed(id, queue, levels, vtime)
  local behind = nil
  local function look(key, own)
    local heads = redis.call('ZRANGE', key, 0, 1, 'WITHSCORES')
    local place = 1
    if heads[1] == own then place = 3 end
    if heads[place] then behind = math.max(behind or -math.huge, vtime - tonumber(heads[place + 1])) end
  end
  look(waiting_key(queue), id)
  for _, level in ipairs(levels) do look(blocked_key(level), queue .. '|' .. id) end
  return behind
end
