-- What the reaper does with a session: each function finds one way in which a session can be left alone for ever, and repairs it.
-- Nothing of this happens while all messages arrive. `note` is told of each repair: cause, session, µs since when.
-- Needs: time, ready, permits, parked, slots, claim, admit, stop, cancel, overdue.

local COMPLETE_AFTER = 10000000  -- µs after which the completion of a session that has ended is taken for lost: it takes milliseconds
local COMPLETE_RARELY = 600000000 -- µs; each time it waits twice as long as before, at most so long
local COME_AFTER = PUBLISHED_LEASE -- µs after which the first messages of all runners of a chord are taken for lost

-- has_rest: a level whose room is handed out by the next beat of a worker, a portion at a time.
local function has_rest(level) return redis.call('SISMEMBER', unfinished_key(), level) == 1 end

-- complete_late: its completion has been lost, whoever was to publish it. Published again, later each time.
local function complete_late(id, f, publish, note)
  local key = session_key(id)
  local due, again = tonumber(f.complete_at), tonumber(f.again or '0')
  if not due then
    if not f.ended then redis.call('HSET', key, 'ended', int(now)) end
    due = tonumber(f.ended or int(now)) + COMPLETE_AFTER
  end
  if now < due then return end
  local wait = math.min(COMPLETE_AFTER * 2 ^ (again + 1), COMPLETE_RARELY)
  redis.call('HSET', key, 'again', int(again + 1), 'complete_at', int(now + wait))
  for _, value in ipairs({ id, '', '', f.timeout, f.signature }) do publish[#publish + 1] = value end
  note('completion', id, tonumber(f.ended))
end

-- end_stopped: it was stopped, nothing of it is claimed, and it has not ended.
local function end_stopped(id, publish, note)
  if redis.call('HLEN', own_key(id)) > 0 then return end
  end_cancelled(id, publish)
  note('end', id)
end

-- admit_late: it is queued nowhere, or at a level with room.
local function admit_late(id, f, note)
  local levels, place = session_levels_of(f.workflow, f.key)
  for _, level in ipairs(levels) do
    if redis.call('ZSCORE', queued_at(level), id) then place = level end
  end
  if not place then
    place = full_level(levels) or 'sessions'
    redis.call('ZADD', queued_at(place), queue_place(tonumber(redis.call('ZSCORE', sessions_open_key(), id)), tonumber(f.priority)), id)
  elseif roomy_sessions[place] or has_rest(place) or is_full(place, tonumber(redis.call('HGET', limits_key(), place) or '0')) then
    return
  end
  give_room(place)
  note('admission', id)
end

-- wake_late: something of it waits for a time, and nobody looks at the clock for it.
local function wake_late(id, f, note)
  local first = redis.call('ZRANGE', deferred_key(id), 0, 0, 'WITHSCORES')[2]
  if first and tonumber(redis.call('ZSCORE', delayed_key(), id) or 'inf') > tonumber(first) then
    redis.call('ZADD', delayed_key(), first, id)
    note('wake-up', id, tonumber(first))
  end
  if not f.deadline and not f.max_wait or redis.call('ZSCORE', due_key(), id) then return end
  if f.deadline or f.status == 'queued' or f.status == 'running' and overdue_of(id, {}, 0) then
    redis.call('ZADD', due_key(), int(now), id)
    note('time limit', id)
  end
end

-- forget_header: none of the runners of its chord has ever come, so it goes on as a session that is counted in Redis. Those that come
-- at last are of use to it, or go.
local function forget_header(id, f, queues, note)
  local opened = tonumber(redis.call('ZSCORE', sessions_open_key(), id))
  if now - opened < COME_AFTER or has_parked(id) or redis.call('EXISTS', runners_key(id)) == 1 then return end
  redis.call('HSET', session_key(id), 'rseq', f.header) -- new runners have names of their own
  redis.call('HDEL', session_key(id), 'header')
  note('header', id, opened)
  for queue in string.gmatch(f.queues, '[^,]+') do
    if offer(id, queue) then queues[#queues + 1] = queue end
  end
end

-- blocked_at: the level at which it waits for a permit with its work on a queue, or nil.
local function blocked_at(id, queue, levels)
  for _, level in ipairs(levels) do
    if redis.call('ZSCORE', blocked_key(level), queue .. '|' .. id) then return level end
  end
  return nil
end

-- serve_late: it has use for a runner on a queue, none is on its way, and it waits for neither a slot nor a permit there; or for
-- a permit that is there.
local function serve_late(id, f, queues, note)
  local levels = levels_of(f.workflow, f.key)
  for queue in string.gmatch(f.queues, '[^,]+') do
    if not redis.call('ZSCORE', waiting_key(queue), id) then
      local is_wanted, since = wants_runner(id, queue)
      local level = is_wanted and since and blocked_at(id, queue, levels)
      if level then
        if not roomy[level] and not has_rest(level) and not is_reached(level, tonumber(redis.call('HGET', limits_key(), level) or '0'), 0) then
          give_room(level)
          note('permit', id, tonumber(since))
        end
      elseif is_wanted and offer(id, queue) then
        queues[#queues + 1] = queue
        note('runner', id, tonumber(redis.call('ZRANGE', ready_key(id, queue), 0, 0, 'WITHSCORES')[2]))
      end
    end
  end
end
