-- claim: give units that are ready on a queue to a runner, up to `want` in all. A unit is
--   b:<branch>           a branch (of a for_each: its expansion)
--   c:<action>:<start>   a chunk: `count` items of a for_each from `start` on
--   f:<action>           the end of a for_each whose items have all settled
-- Appends to `claims`: unit, value in `own`, what the runner must know to go on; and to `started` what the status channel records.
-- Returns the permits held. Needs: time, ready, permits.

local function joined(id, branch)
  local counts = redis.call('HMGET', joins_key(id), branch, branch .. ':F', branch .. ':K', branch .. ':U')
  return (counts[1] or '0') .. ',' .. (counts[2] or '0') .. ',' .. (counts[3] or '0') .. ',' .. (counts[4] or '0')
end

local function item_counts(id, action)
  local c = redis.call('HMGET', items_key(id, action), 'size', 'n:succeeded', 'n:failed', 'n:timed_out', 'n:skipped', 'n:cancelled', 'spilled')
  for index = 1, 7 do c[index] = c[index] or '0' end
  return table.concat(c, ',')
end

-- take_items: claim a chunk that came back, or up to `chunk` items at the cursor. Returns unit, attempt, count, retry.
local function take_items(id, queue, action, chunk)
  local key = items_key(id, action)
  local f = redis.call('HMGET', key, 'size', 'cursor', 'max', 'back')
  local size, cursor, most, back = tonumber(f[1]), tonumber(f[2]), tonumber(f[3]), tonumber(f[4])
  local unit, attempt, count, retry
  if back > 0 then
    local member = redis.call('ZPOPMIN', returned_key(id, action))[1]
    back = redis.call('HINCRBY', key, 'back', -1)
    unit, attempt, count, retry = string.match(member, '^(.*)|(%d+)|(%d+)|(%d+)$')
  else
    unit, attempt, retry = 'c:' .. action .. ':' .. int(cursor), '1', '0'
    count = math.min(chunk, size - cursor)
    cursor = cursor + count
    redis.call('HSET', key, 'cursor', int(cursor))
  end
  if most > 0 then
    redis.call('HINCRBY', key, 'running', 1)
    show_items(id, action)
  elseif back == 0 and cursor == size then
    redis.call('ZREM', ready_key(id, queue), 'i:' .. action)
  end
  return unit, attempt, count, retry
end

local function claim(id, workflow, queue, life, limit, want, chunk, held, before, claims, started)
  local ready, own = ready_key(id, queue), own_key(id)
  local used = redis.call('HLEN', own)
  while held < want do
    if used >= limit then break end
    if held >= before and limit_reached(workflow, held - before) then break end
    local entry = redis.call('ZRANGE', ready, 0, 0, 'WITHSCORES')
    local member = entry[1]
    if not member then break end
    local ready_at = int(tonumber(entry[2]))
    local unit, attempt, count, retry
    if string.sub(member, 1, 2) == 'i:' then
      unit, attempt, count, retry = take_items(id, queue, string.sub(member, 3), chunk)
    else
      unit, attempt, count, retry = string.match(member, '^(.*)|(%d+)|(%d+)|(%d+)$')
      redis.call('ZREM', ready, member)
    end
    local value = life .. '|' .. attempt .. '|' .. int(tonumber(count)) .. '|' .. retry .. '|' .. ready_at .. '|' .. int(now)
    redis.call('HSET', own, unit, value)
    used = used + 1
    held = held + 1
    local kind, info = string.sub(unit, 1, 2), ''
    if kind == 'b:' then info = joined(id, string.sub(unit, 3))
    elseif kind == 'f:' then info = item_counts(id, string.sub(unit, 3)) end
    claims[#claims + 1] = unit
    claims[#claims + 1] = value
    claims[#claims + 1] = info
    if kind ~= 'f:' then started[#started + 1] = unit .. '|' .. attempt .. '|' .. retry .. '|' .. int(tonumber(count)) end
  end
  return held
end
