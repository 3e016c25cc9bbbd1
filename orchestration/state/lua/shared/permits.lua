-- Permits beyond the session's own, taken and given back together. A level is one semaphore of them: key:<key> ·
-- workflow:<workflow> · global. A runner's permits are <runner>#1 … <runner>#held, in each of its session's levels; they
-- change only when the number of units it holds changes, so a runner that goes from branch to branch costs nothing here.
-- A runner that is published has its first permit already: a slot and a permit are given together, or not at all.
-- The session's own permits are the fields of `own`. Needs: time.

local roomy = {} -- levels that have, or may have, more room than when the call began
local roomy_sessions = {} -- the same, of whole sessions: sessions · sessions:workflow:<workflow> · sessions:key:<key>

-- levels_of: the levels of a session, the narrowest first: that one it waits for, and keeps nobody of the others waiting.
local function levels_of(workflow, key)
  if key then return { 'key:' .. key, 'workflow:' .. workflow, 'global' } end
  return { 'workflow:' .. workflow, 'global' }
end

-- is_reached: whether a level has no room beside `taken` permits that are taken in this call and not counted yet.
local function is_reached(level, most, taken)
  return most > 0 and redis.call('ZCARD', permits_key(level)) + taken >= most
end

-- limit_reached: the level whose limit a further permit would exceed, or nil. Negative `taken`: permits to be given back.
local function limit_reached(levels, taken)
  local limits = redis.call('HMGET', limits_key(), unpack(levels))
  for place, level in ipairs(levels) do
    if is_reached(level, tonumber(limits[place] or '0'), taken) then return level end
  end
  return nil
end

-- give_room: those that wait for the level are to be looked at before the call ends.
local function give_room(level)
  if string.find(level, '^sessions') then roomy_sessions[level] = true else roomy[level] = true end
end

-- unblock: of the sessions that head those waiting for levels with room, the one that is furthest behind competes for a slot
-- again. Returns its queue, or nil: nobody waits, or no room.
local function unblock()
  local chosen, lowest
  for level in pairs(roomy) do
    local head = redis.call('ZRANGE', blocked_key(level), 0, 0, 'WITHSCORES')
    if head[1] and not is_reached(level, tonumber(redis.call('HGET', limits_key(), level) or '0'), 0) then
      if not lowest or tonumber(head[2]) < lowest then chosen, lowest = level, tonumber(head[2]) end
    else
      roomy[level] = nil
    end
  end
  if not chosen then return nil end
  local head = redis.call('ZPOPMIN', blocked_key(chosen))
  local queue, id = string.match(head[1], '^(.*)|([^|]*)$')
  redis.call('ZADD', waiting_key(queue), head[2], id)
  return queue
end

-- set_held: a runner has `held` permits from now on; it had `before`.
local function set_held(levels, runner, before, held)
  if before == held then return end
  for _, level in ipairs(levels) do
    local permits = permits_key(level)
    for k = before + 1, held do redis.call('ZADD', permits, int(now), runner .. '#' .. k) end
    for k = held + 1, before do redis.call('ZREM', permits, runner .. '#' .. k) end
    if held < before then give_room(level) end
  end
end

-- is_strict: whether a limit was lowered below its use, so that permits are not kept from one branch to the next unasked.
-- Levels whose excess is gone are struck, a few in each call.
local function is_strict()
  local levels = redis.call('SRANDMEMBER', excess_key(), 8)
  for _, level in ipairs(levels) do
    local most = tonumber(redis.call('HGET', limits_key(), level) or '0')
    if most == 0 or redis.call('ZCARD', permits_key(level)) <= most then redis.call('SREM', excess_key(), level) end
  end
  return #levels > 0
end
