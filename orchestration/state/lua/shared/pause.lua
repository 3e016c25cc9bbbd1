-- A session is paused for one or more reasons: it was, its workflow was, or all were. They stand in its field `paused`, as
-- ,session,workflow, and its status is paused while there is one, unless it is queued, cancelled or has ended. In any status but
-- running nothing is claimed and no runner published, so that nothing on the way of a branch asks for pauses.
-- Needs: time, emit.

-- tell_status: the session's row in PostgreSQL is to say so.
local function tell_status(id, status)
  local key = session_key(id)
  local rows = '[["s","' .. status .. '",' .. redis.call('HINCRBY', key, 'sseq', 1) .. ']]'
  emit(id, redis.call('HGET', key, 'day'), '', { rows })
end

-- reasons_at_start: why a session that is opened now is paused, or nil.
local function reasons_at_start(id, workflow)
  local found = ','
  local since = redis.call('GET', paused_session_key(id))
  if since then
    redis.call('DEL', paused_session_key(id))
    redis.call('HSET', session_key(id), 'paused_by', since)
    found = found .. 'session,'
  end
  local marked = redis.call('HMGET', paused_key(), 'workflow:' .. workflow, '*')
  if marked[1] then found = found .. 'workflow,' end
  if marked[2] then found = found .. 'all,' end
  if found ~= ',' then return found end
  return nil
end
