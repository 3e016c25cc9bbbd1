-- claim: give units that are ready on a queue to a runner, up to `want` in all. A unit is
--   b:<branch>           a branch (of a for_each: its expansion)
--   c:<action>:<start>   a chunk: `count` items of a for_each from `start` on
--   f:<action>           the end of a for_each whose items have all settled
-- Appends to `claims`: unit, value in `own`, what the runner must know to go on. Returns the permits held.
-- Needs: time, ready, permits.

local function joined(id, branch)
  local counts = redis.call('HMGET', joins_key(id), branch, branch .. ':F', branch .. ':K', branch .. ':U')
  return (counts[1] or '0') .. ',' .. (counts[2] or '0') .. ',' .. (counts[3] or '0') .. ',' .. (counts[4] or '0')
end

local function item_counts(id, action)
  local c = redis.call('HMGET', items_key(id, action), 'size', 'n:succeeded', 'n:failed', 'n:timed_out', 'n:skipped', 'n:cancelled', 'spilled')
  for index = 1, 7 do c[index] = c[index] or '0' end
  return table.concat(c, ',')
end

-- chunk_of: most items of a for_each in one claim: <action>=<n> in `chunks`, which begins and ends with a comma.
local function chunk_of(chunks, action)
  local _, stop = string.find(chunks, ',' .. action .. '=', 1, true)
  return stop and tonumber(string.match(chunks, '^%d+', stop + 1)) or 1
end

-- take_items: claim a chunk that came back, or items at the cursor; of either at most `chunk`, and towards the end no more
-- than half of what is left for each of those that share it. Returns unit, attempt, count, retry.
local function take_items(id, queue, action, chunk, limit)
  local key = items_key(id, action)
  local f = redis.call('HMGET', key, 'size', 'cursor', 'max', 'back')
  local size, cursor, most, back = tonumber(f[1]), tonumber(f[2]), tonumber(f[3]), tonumber(f[4])
  local unit, attempt, count, retry
  if back > 0 then
    local head = redis.call('ZPOPMIN', returned_key(id, action))
    unit, attempt, count, retry = string.match(head[1], '^(.*)|(%d+)|(%d+)|(%d+)$')
    count = tonumber(count)
    if count > chunk then
      local start = tonumber(string.match(unit, ':(%d+)$'))
      local rest = 'c:' .. action .. ':' .. int(start + chunk) .. '|' .. attempt .. '|' .. int(count - chunk) .. '|' .. retry
      redis.call('ZADD', returned_key(id, action), head[2], rest)
      count = chunk
    else
      back = redis.call('HINCRBY', key, 'back', -1)
    end
  else
    unit, attempt, retry = 'c:' .. action .. ':' .. int(cursor), '1', '0'
    local left = size - cursor
    count = math.min(chunk, left)
    if count > 1 then
      local sharing = math.min(limit, tonumber(redis.call('GET', slots_total_key(queue)) or '1'))
      if most > 0 then sharing = math.min(sharing, most) end
      count = math.min(count, math.max(1, math.ceil(left / (2 * math.max(1, sharing)))))
    end
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

-- before: permits that the runner has; unless `strict`, it needs to ask for none of these.
local function claim(id, levels, queue, life, limit, want, chunks, held, before, strict, claims)
  local ready, own = ready_key(id, queue), own_key(id)
  local used = redis.call('HLEN', own)
  while held < want do
    if used >= limit then break end
    if (strict or held >= before) and limit_reached(levels, held - before) then break end
    local entry = redis.call('ZRANGE', ready, 0, 0, 'WITHSCORES')
    local member = entry[1]
    if not member then break end
    local ready_at = int(tonumber(entry[2]))
    local unit, attempt, count, retry
    if string.sub(member, 1, 2) == 'i:' then
      local action = string.sub(member, 3)
      unit, attempt, count, retry = take_items(id, queue, action, chunk_of(chunks, action), limit)
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
  end
  return held
end
