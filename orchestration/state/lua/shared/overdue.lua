-- What has waited for too long: sessions that are queued, and branches that nobody has begun, for `max_wait` µs.
-- Needs: time, ready, permits, admit, claim.
local MOST_READY = 1000 -- units looked at on one queue

-- waiting_at: the limit of whole sessions at which a session is queued.
local function waiting_at(id, workflow, key)
  for _, level in ipairs(session_levels_of(workflow, key)) do
    if redis.call('ZSCORE', queued_at(level), id) then return level end
  end
  return 'sessions'
end

-- waits_for: what keeps a branch of the session from being begun on a queue, for people.
local function waits_for(id, queue, workflow, key, limit)
  if tonumber(redis.call('GET', slots_total_key(queue)) or '0') < 1 then return 'a worker of queue ' .. queue end
  if redis.call('HLEN', own_key(id)) >= tonumber(limit) then return 'the limit session:' .. id .. '=' .. limit end
  local level = limit_reached(levels_of(workflow, key), 0)
  if level then return 'the limit ' .. level .. '=' .. redis.call('HGET', limits_key(), level) end
  return 'a free slot of queue ' .. queue
end

-- overdue_of: appends session, version, day, queue, unit, value of a claim, predecessors, what it waits for, to `found` for each branch
-- that has waited for too long, while there are fewer than `most` values in it. Returns when the next will have: µs, or nil.
local function overdue_of(id, found, most)
  local f = redis.call('HMGET', session_key(id), 'queues', 'max_wait', 'began', 'version', 'day', 'workflow', 'key', 'limit')
  local due
  for queue in string.gmatch(f[1], '[^,]+') do
    local units = redis.call('ZRANGE', ready_key(id, queue), 0, MOST_READY - 1, 'WITHSCORES')
    for at = 1, #units, 2 do
      if is_untouched(units[at]) then
        local expires = math.max(tonumber(units[at + 1]), tonumber(f[3])) + tonumber(f[2])
        if expires > now or #found >= most then
          due = math.min(due or expires, math.max(expires, now + 1))
          break
        end
        local unit = string.match(units[at], '^(b:.*)|1|1|0$')
        local value = '|1|1|0|' .. int(tonumber(units[at + 1])) .. '|' .. int(now)
        local reason = waits_for(id, queue, f[6], f[7], f[8])
        for _, text in ipairs({ id, f[4], f[5], queue, unit, value, joined(id, string.sub(unit, 3)), reason }) do found[#found + 1] = text end
      end
    end
  end
  return due
end
