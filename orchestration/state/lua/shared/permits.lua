-- Permits of the workflow and of the fleet, taken and given back together. A runner's permits are <runner>#1 … <runner>#held;
-- they change only when the number of units it holds changes, so a runner that goes from branch to branch costs nothing here.
-- A runner that is published has its first permit already: a slot and a permit are given together, or not at all.
-- The session's own permits are the fields of `own`. Needs: time.

-- limit_reached: which limit a further permit would exceed, or nil. `taken`: permits taken in this call and not counted yet.
local function limit_reached(workflow, taken)
  local limits = redis.call('HMGET', limits_key(), 'global', 'workflow:' .. workflow)
  local global, own = tonumber(limits[1] or '0'), tonumber(limits[2] or '0')
  if global > 0 and redis.call('ZCARD', permits_global_key()) + taken >= global then return 'global' end
  if own > 0 and redis.call('ZCARD', permits_workflow_key(workflow)) + taken >= own then return 'workflow' end
  return nil
end

-- move_blocked: the session that has waited longest (in virtual time) for a limit competes for a slot again. Returns its queue.
local function move_blocked(blocked)
  local head = redis.call('ZPOPMIN', blocked)
  if not head[1] then return nil end
  local queue, id = string.match(head[1], '^(.*)|([^|]*)$')
  redis.call('ZADD', waiting_key(queue), head[2], id)
  return queue
end

-- unblock: while a limit leaves room, its next waiter may compete. Returns the waiter's queue, or nil: nobody waits, or no room.
local function unblock(workflow)
  if redis.call('EXISTS', blocked_global_key()) == 1 and limit_reached(workflow or '', 0) ~= 'global' then
    return move_blocked(blocked_global_key())
  end
  if workflow and redis.call('EXISTS', blocked_workflow_key(workflow)) == 1 and not limit_reached(workflow, 0) then
    return move_blocked(blocked_workflow_key(workflow))
  end
  return nil
end

-- set_held: a runner has `held` permits from now on; it had `before`.
local function set_held(workflow, runner, before, held)
  if before == held then return end
  local global, own = permits_global_key(), permits_workflow_key(workflow)
  for k = before + 1, held do
    redis.call('ZADD', global, int(now), runner .. '#' .. k)
    redis.call('ZADD', own, int(now), runner .. '#' .. k)
  end
  for k = held + 1, before do
    redis.call('ZREM', global, runner .. '#' .. k)
    redis.call('ZREM', own, runner .. '#' .. k)
  end
end
