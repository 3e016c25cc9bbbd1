-- make_ready: a unit may run. Its score is the µs it became ready, made to rise by at least 1 within a session,
-- so that units keep the order in which they became ready. Needs: time.
-- A ready member is <unit>|<attempt>|<count>|<retry>, or i:<action> for all items of a for_each that nobody has claimed.

-- is_untouched: it is a branch that nobody has begun: what `max_wait` holds for (wake_sessions).
local function is_untouched(member) return string.find(member, '^b:.*|1|1|0$') ~= nil end

local touched = {} -- queues of the session that got something ready in this call
local function make_ready(id, queue, member)
  local key = session_key(id)
  local f = redis.call('HMGET', key, 'age', 'max_wait')
  local age = tonumber(f[1] or '0')
  if age < now then age = now else age = age + 1 end
  redis.call('HSET', key, 'age', int(age))
  redis.call('ZADD', ready_key(id, queue), int(age), member)
  if f[2] and is_untouched(member) then redis.call('ZADD', due_key(), 'LT', int(age + tonumber(f[2])), id) end
  touched[queue] = true
end

-- show_items: i:<action> is ready exactly while items are unclaimed and the limit of the for_each allows one more chunk.
local function show_items(id, action)
  local f = redis.call('HMGET', items_key(id, action), 'queue', 'size', 'cursor', 'running', 'max', 'back', 'at')
  local most = tonumber(f[5])
  if (tonumber(f[6]) > 0 or tonumber(f[3]) < tonumber(f[2])) and (most == 0 or tonumber(f[4]) < most) then
    redis.call('ZADD', ready_key(id, f[1]), 'NX', f[7], 'i:' .. action)
    touched[f[1]] = true
  else
    redis.call('ZREM', ready_key(id, f[1]), 'i:' .. action)
  end
end

-- release_chunk: a chunk of the for_each is not claimed any more.
local function release_chunk(id, action)
  local key = items_key(id, action)
  if tonumber(redis.call('HGET', key, 'max')) > 0 then
    redis.call('HINCRBY', key, 'running', -1)
    show_items(id, action)
  end
end

-- put_back: a unit that is not claimed any more may run again, in its old place.
local function put_back(id, queue, unit, attempt, count, retry, ready_at)
  local member = unit .. '|' .. attempt .. '|' .. count .. '|' .. retry
  local action = string.match(unit, '^c:(.*):%d+$')
  if action then
    redis.call('ZADD', returned_key(id, action), ready_at, member)
    redis.call('HINCRBY', items_key(id, action), 'back', 1)
    show_items(id, action)
  else
    redis.call('ZADD', ready_key(id, queue), ready_at, member)
    local most = is_untouched(member) and redis.call('HGET', session_key(id), 'max_wait')
    if most then redis.call('ZADD', due_key(), 'LT', int(ready_at + tonumber(most)), id) end
    touched[queue] = true
  end
end

-- count_join: one direct predecessor of a branch has settled; the last one makes the branch ready.
local function count_join(id, branch, predecessors, queue, outcome)
  local key = joins_key(id)
  local settled = redis.call('HINCRBY', key, branch, 1)
  if outcome ~= 'S' then redis.call('HINCRBY', key, branch .. ':' .. outcome, 1) end
  if settled == predecessors then make_ready(id, queue, 'b:' .. branch .. '|1|1|0') end
end
