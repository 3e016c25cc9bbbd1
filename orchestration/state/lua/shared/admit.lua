-- Semaphores of whole sessions: sessions:key:<key> · sessions:workflow:<workflow> · sessions, the fleet's. A session that
-- finds one full is queued there, at the narrowest such. Needs: time, ready, permits, slots, emit, pause.
local MOST_ADMITTED = 100
local PRIORITY_WAIT = 10000000 -- µs by which a priority shortens the wait of a queued session

local function session_levels_of(workflow, key)
  if key then return { 'sessions:key:' .. key, 'sessions:workflow:' .. workflow, 'sessions' } end
  return { 'sessions:workflow:' .. workflow, 'sessions' }
end

local function running_at(level) return level == 'sessions' and sessions_running_key() or permits_key(level) end
local function queued_at(level) return level == 'sessions' and sessions_queued_key() or blocked_key(level) end

-- queue_place: the place in the queue of a session that came then.
local function queue_place(came, priority) return int(came - PRIORITY_WAIT * priority) end

-- is_full: whether no further session may run at the level.
local function is_full(level, most) return most > 0 and redis.call('ZCARD', running_at(level)) >= most end

-- full_level: the level at which a session must wait, or nil.
local function full_level(levels)
  local limits = redis.call('HMGET', limits_key(), unpack(levels))
  for place, level in ipairs(levels) do
    if is_full(level, tonumber(limits[place] or '0')) then return level end
  end
  return nil
end

local begun = 0 -- sessions in this call, which keep their order

-- begin_session: it counts at its levels from now on.
local function begin_session(id, levels)
  for _, level in ipairs(levels) do redis.call('ZADD', running_at(level), int(now + begun), id) end
  begun = begun + 1
end

-- drop_session: it does not count, nor waits, at its levels any more.
local function drop_session(id, levels)
  for _, level in ipairs(levels) do
    redis.call('ZREM', queued_at(level), id)
    if redis.call('ZREM', running_at(level), id) == 1 then roomy_sessions[level] = true end
  end
end

-- next_queued: of the sessions that head the queues of levels with room, the one that came first, taken out, with its score.
local function next_queued()
  local chosen, lowest
  for level in pairs(roomy_sessions) do
    local head = redis.call('ZRANGE', queued_at(level), 0, 0, 'WITHSCORES')
    if head[1] and not is_full(level, tonumber(redis.call('HGET', limits_key(), level) or '0')) then
      if not lowest or tonumber(head[2]) < lowest then chosen, lowest = level, tonumber(head[2]) end
    else
      roomy_sessions[level] = nil
    end
  end
  if not chosen then return nil end
  return unpack(redis.call('ZPOPMIN', queued_at(chosen)))
end

-- admit: while a level may have more sessions, those that are queued there start, in their order. Bounded.
local function admit(publish)
  for _ = 1, MOST_ADMITTED do
    local id, score = next_queued()
    if not id then return end
    local f = redis.call('HMGET', session_key(id), 'status', 'queues', 'paused', 'priority', 'workflow', 'key', 'max_wait')
    if f[1] == 'queued' then
      local levels = session_levels_of(f[5], f[6])
      local full = full_level(levels)
      if full then
        redis.call('ZADD', queued_at(full), score, id)
      else
        local status = f[3] and 'paused' or 'running'
        redis.call('HSET', session_key(id), 'status', status, 'vtime', first_vtime(tonumber(f[4])))
        if f[7] then redis.call('HSET', session_key(id), 'began', int(now)) end -- its branches wait from now on
        begin_session(id, levels)
        tell_status(id, status)
        touched = {}
        touch_all(f[2])
        hand_on_touched(id, publish, false)
      end
    end
  end
  for level in pairs(roomy_sessions) do redis.call('SADD', unfinished_key(), level) end
end
