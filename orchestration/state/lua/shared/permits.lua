-- Permits of the workflow and of the fleet, taken and given back together. A runner's permits are <runner>#1 … <runner>#held;
-- they change only when the number of units it holds changes, so a runner that goes from branch to branch costs nothing here.
-- The session's own permits are the fields of `own`. Needs: time.

-- limit_reached: which limit a further permit would exceed, or nil.
local function limit_reached(workflow)
  local limits = redis.call('HMGET', limits_key(), 'global', 'workflow:' .. workflow)
  local global, own = tonumber(limits[1] or '0'), tonumber(limits[2] or '0')
  if global > 0 and redis.call('ZCARD', permits_global_key()) >= global then return 'global' end
  if own > 0 and redis.call('ZCARD', permits_workflow_key(workflow)) >= own then return 'workflow' end
  return nil
end

-- move_blocked: the session that waited longest (in virtual time) for a limit competes for a slot again. Returns its queue.
local function move_blocked(blocked)
  local head = redis.call('ZPOPMIN', blocked)
  if not head[1] then return nil end
  local queue, id = string.match(head[1], '^(.*)|([^|]*)$')
  redis.call('ZADD', waiting_key(queue), head[2], id)
  return queue
end

-- unblock: where a limit leaves room, its first waiter may go on. Returns the queues that got one.
local function unblock(workflow)
  local queues = {}
  if redis.call('EXISTS', blocked_global_key(), blocked_workflow_key(workflow)) == 0 then return queues end
  local reached = limit_reached(workflow)
  if reached ~= 'global' then queues[#queues + 1] = move_blocked(blocked_global_key()) end
  if not reached then queues[#queues + 1] = move_blocked(blocked_workflow_key(workflow)) end
  return queues
end

-- set_held: a runner holds `held` permits from now on; it held `before`. Returns the queues that got a waiter back.
local function set_held(workflow, runner, before, held)
  if before < 0 then before = 0 end
  local global, own, queues = permits_global_key(), permits_workflow_key(workflow), {}
  for k = before + 1, held do
    redis.call('ZADD', global, int(now), runner .. '#' .. k)
    redis.call('ZADD', own, int(now), runner .. '#' .. k)
  end
  for k = held + 1, before do
    redis.call('ZREM', global, runner .. '#' .. k)
    redis.call('ZREM', own, runner .. '#' .. k)
    for _, queue in ipairs(unblock(workflow)) do queues[#queues + 1] = queue end
  end
  return queues
end
