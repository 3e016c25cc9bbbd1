-- settle: record what became of one claimed unit. The caller has checked that `own` holds exactly `value` (the fence).
-- A settlement stands in ARGV as
--   unit, value, verb, rows, nc, (status, n) × nc, nr, (action, result) × nr, and what the verb takes:
--   done    outcome, 1 if the session fails by it else 0, ns, (branch, predecessors, queue) × ns      a branch or the end of a for_each
--   expand  size, most chunks at once (0: no limit)                                                  a for_each begins
--   items   n settled from the start on, results (JSON array or ''), rest, delay µs, retry            a chunk
--           rest: what becomes of the items that have not ended. back: they are ready again · defer: the first is tried again
--           after the delay, as that retry · keep: the first stays claimed, as a chunk of one. All others are ready again
--   defer   delay µs, number of the retry                                                            try again later
--   back    –                                                                                         nothing was done
-- rows: JSON array for the status channel, or ''. Needs: time, ready.

local branches_settled = 0 -- in this call

-- skip_settlement: index behind the settlement that starts at `at`.
local function skip_settlement(at)
  local verb = ARGV[at + 2]
  local place = at + 4
  place = place + 1 + 2 * tonumber(ARGV[place])
  place = place + 1 + 2 * tonumber(ARGV[place])
  if verb == 'done' then return place + 3 + 3 * tonumber(ARGV[place + 2]) end
  if verb == 'items' then return place + 5 end
  if verb == 'expand' or verb == 'defer' then return place + 2 end
  return place
end

-- finish_items: all items of a for_each have settled: its end becomes a unit of its own, which decides what comes next.
local function finish_items(id, action, queue)
  make_ready(id, queue, 'f:' .. action .. '|1|1|0')
  redis.call('DEL', bits_key(id, action), returned_key(id, action))
end

-- mark_items: one bit for each settled item; whole bytes are written as one range.
local function mark_items(id, action, start, count)
  local key = bits_key(id, action)
  local stop = start + count
  while start < stop and start % 8 ~= 0 do
    redis.call('SETBIT', key, start, 1)
    start = start + 1
  end
  local bytes = math.floor((stop - start) / 8)
  if bytes > 0 then
    redis.call('SETRANGE', key, start / 8, string.rep('\255', bytes))
    start = start + 8 * bytes
  end
  while start < stop do
    redis.call('SETBIT', key, start, 1)
    start = start + 1
  end
end

-- defer: a unit is to be tried again after `delay` µs.
local function defer(id, queue, unit, attempt, count, retry, delay)
  local due = now + tonumber(delay)
  redis.call('ZADD', deferred_key(id), int(due), unit .. '|' .. attempt .. '|' .. int(count) .. '|' .. retry .. '|' .. queue)
  local first = tonumber(redis.call('ZSCORE', delayed_key(), id) or 'inf')
  if due < first then redis.call('ZADD', delayed_key(), int(due), id) end
end

local function settle_items(id, queue, unit, value, place, cap)
  local action, start = string.match(unit, '^c:(.*):(%d+)$')
  local life, attempt, count, ready_at, since = string.match(value, '^([^|]*)|(%d+)|(%d+)|%d+|(%d+)|(%d+)$')
  local settled, results, rest = tonumber(ARGV[place]), ARGV[place + 1], ARGV[place + 2]
  start, count = tonumber(start), tonumber(count)
  local key = items_key(id, action)
  local f = redis.call('HMGET', key, 'size', 'max', 'n:succeeded', 'n:failed', 'n:timed_out', 'n:skipped', 'n:cancelled')
  if settled > 0 then
    mark_items(id, action, start, settled)
    if results ~= '' then
      local bytes = redis.call('HINCRBY', key, 'bytes', #results)
      if bytes <= cap then redis.call('HSET', item_results_key(id, action), int(start), results)
      else redis.call('HSET', key, 'spilled', 1) end
    end
  end
  local first, left = start + settled, count - settled
  if left > 0 and rest ~= 'back' then
    local one = 'c:' .. action .. ':' .. int(first)
    if rest == 'defer' then defer(id, queue, one, attempt, 1, ARGV[place + 4], ARGV[place + 3])
    else redis.call('HSET', own_key(id), one, life .. '|' .. attempt .. '|1|0|' .. ready_at .. '|' .. since) end
    first, left = first + 1, left - 1
  end
  if left > 0 then put_back(id, queue, 'c:' .. action .. ':' .. int(first), attempt, int(left), '0', ready_at) end
  if rest ~= 'keep' and tonumber(f[2]) > 0 then release_chunk(id, action) end
  local ended = 0
  for index = 3, 7 do ended = ended + (f[index] or 0) end
  if settled > 0 and ended == tonumber(f[1]) then finish_items(id, action, queue) end
end

local function settle(id, queue, at, cap)
  local unit, value, verb, rows = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  local attempt, count, retry, ready_at = string.match(value, '^[^|]*|(%d+)|(%d+)|(%d+)|(%d+)|%d+$')
  count = tonumber(count)
  redis.call('HDEL', own_key(id), unit)
  local place = at + 4
  local counters
  if verb == 'items' then counters = items_key(id, string.match(unit, '^c:(.*):%d+$')) else counters = session_key(id) end
  for _ = 1, tonumber(ARGV[place]) do
    redis.call('HINCRBY', counters, 'n:' .. ARGV[place + 1], ARGV[place + 2])
    place = place + 2
  end
  place = place + 1
  for _ = 1, tonumber(ARGV[place]) do
    redis.call('HSET', results_key(id), ARGV[place + 1], ARGV[place + 2])
    place = place + 2
  end
  place = place + 1
  if verb == 'done' then
    if ARGV[place + 1] == '1' then redis.call('HINCRBY', session_key(id), 'failed', 1) end
    local first = place + 3
    for index = 0, tonumber(ARGV[place + 2]) - 1 do
      local base = first + 3 * index
      count_join(id, ARGV[base], tonumber(ARGV[base + 1]), ARGV[base + 2], ARGV[place])
    end
    branches_settled = branches_settled + 1
  elseif verb == 'items' then
    settle_items(id, queue, unit, value, place, cap)
  elseif verb == 'expand' then
    local action = string.sub(unit, 3)
    redis.call('HSET', items_key(id, action), 'queue', queue, 'size', ARGV[place], 'cursor', 0, 'running', 0,
      'max', ARGV[place + 1], 'back', 0, 'at', int(now))
    redis.call('HSET', session_key(id), 'each:' .. action, 1)
    show_items(id, action)
  elseif verb == 'defer' then
    if string.sub(unit, 1, 2) == 'c:' then release_chunk(id, string.match(unit, '^c:(.*):%d+$')) end
    defer(id, queue, unit, attempt, count, ARGV[place + 1], ARGV[place])
  else
    put_back(id, queue, unit, attempt, int(count), retry, ready_at)
    if string.sub(unit, 1, 2) == 'c:' then release_chunk(id, string.match(unit, '^c:(.*):%d+$')) end
  end
  return rows
end
