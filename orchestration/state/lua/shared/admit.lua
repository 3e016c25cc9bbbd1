-- admit: while the fleet may run more sessions, those that are queued start, in their order. Bounded.
-- Needs: time, ready, permits, slots, emit, pause.
local MOST_ADMITTED = 100

local function admit(publish)
  local most = tonumber(redis.call('HGET', limits_key(), 'workflows') or '0')
  for _ = 1, MOST_ADMITTED do
    if most > 0 and redis.call('ZCARD', sessions_running_key()) >= most then return end
    local id = redis.call('ZPOPMIN', sessions_queued_key())[1]
    if not id then return end
    local fields = redis.call('HMGET', session_key(id), 'status', 'queues', 'workflow', 'priority', 'paused')
    if fields[1] == 'queued' then
      local status = fields[5] and 'paused' or 'running'
      redis.call('HSET', session_key(id), 'status', status, 'vtime', first_vtime(tonumber(fields[4])))
      redis.call('ZADD', sessions_running_key(), int(now), id)
      tell_status(id, status)
      touched = {}
      touch_all(fields[2])
      hand_on_touched(id, fields[3], publish, false)
    end
  end
end
