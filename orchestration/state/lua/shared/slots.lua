-- Slots and the order in which sessions get them. At most as many runners are in flight on a queue as workers have
-- registered slots there (at least one); all other ready work waits here, in virtual-time order. Needs: time, permits.

local HEAD_START = 250000        -- µs of virtual time by which a new session is ahead (measured: it hides the wait of small runs)
local PUBLISHED_LEASE = 60000000 -- µs after which a runner that was published and never started is given up
local MOST_TURNS = 1000          -- bounds one call; what is left over is handed on by the next one

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

-- wants_runner: more units are ready on the queue than runners are on their way, and one more may hold a permit.
local function wants_runner(id, queue)
  local fields = redis.call('HMGET', session_key(id), 'status', 'limit', 'pub:' .. queue)
  if fields[1] ~= 'running' then return false end
  local coming = tonumber(fields[3] or '0')
  return redis.call('HLEN', own_key(id)) + coming < tonumber(fields[2]) and more_ready_than(id, queue, coming)
end

-- offer: let the session compete for a slot of the queue, if it has use for one.
local function offer(id, queue)
  local waiting = waiting_key(queue)
  if not redis.call('ZSCORE', waiting, id) and wants_runner(id, queue) then
    redis.call('ZADD', waiting, redis.call('HGET', session_key(id), 'vtime'), id)
  end
end

-- register_published: a new runner of the session is on its way through the broker. Returns its id.
local function register_published(id, queue)
  local key = session_key(id)
  redis.call('SADD', queues_key(), queue)
  local runner = id .. '.' .. redis.call('HINCRBY', key, 'rseq', 1)
  redis.call('HINCRBY', key, 'pub:' .. queue, 1)
  redis.call('HSET', runners_key(id), runner, '|-1')
  redis.call('ZADD', inflight_key(queue), int(now + PUBLISHED_LEASE), runner)
  return runner
end

-- hand_on: give the free slots of the queues in the list to the waiting sessions, fairest first. Appends session, runner,
-- queue, branch timeout (s) to `publish` for each runner that the caller must publish. Every turn publishes, or takes a session out of `waiting`.
local function hand_on(queues, publish)
  local turns, index, seen = 0, 1, {}
  while queues[index] and turns < MOST_TURNS do
    local queue = queues[index]
    index = index + 1
    local waiting = waiting_key(queue)
    local free = math.max(tonumber(redis.call('GET', slots_total_key(queue)) or '0'), 1) - redis.call('ZCARD', inflight_key(queue))
    while free > 0 and turns < MOST_TURNS do
      turns = turns + 1
      local head = redis.call('ZRANGE', waiting, 0, 0, 'WITHSCORES')
      local id = head[1]
      if not id then break end
      redis.call('ZREM', waiting, id)
      local workflow = redis.call('HGET', session_key(id), 'workflow')
      if not workflow or not wants_runner(id, queue) then
        -- its permit may be another's
        for _, name in ipairs(unblock(workflow or '')) do queues[#queues + 1] = name end
      else
        local reached = limit_reached(workflow)
        if reached == 'global' then
          redis.call('ZADD', blocked_global_key(), head[2], queue .. '|' .. id)
        elseif reached then
          redis.call('ZADD', blocked_workflow_key(workflow), head[2], queue .. '|' .. id)
        else
          publish[#publish + 1] = id
          publish[#publish + 1] = register_published(id, queue)
          publish[#publish + 1] = queue
        publish[#publish + 1] = redis.call('HGET', session_key(id), 'timeout')
          free = free - 1
          offer(id, queue)
        end
      end
    end
  end
end

-- hand_on_touched: offer the session on all queues where something became ready, and hand on there and on the queues in the list.
local function hand_on_touched(id, queues, publish)
  for queue in pairs(touched) do
    offer(id, queue)
    queues[#queues + 1] = queue
  end
  hand_on(queues, publish)
end

-- leave: a runner is no more: its permits, slot and registration are given back. Returns queues where somebody may go on.
local function leave(id, workflow, runner, queue, worker, held)
  redis.call('HDEL', runners_key(id), runner, runner .. ':call')
  redis.call('ZREM', inflight_key(queue), runner)
  if worker ~= '' then redis.call('SREM', worker_runners_key(worker), queue .. '|' .. runner) end
  return set_held(workflow, runner, held, 0)
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
