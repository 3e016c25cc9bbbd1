-- end_alone: a session has ended, and no runner of it asks. What follows is appended to `publish`: its
-- completion, as a publication without a runner, whose message is the parked signature; in a chord session the runner that was
-- parked last, which finds that it is to end the session. Where none is parked, the first one that comes is.
-- Needs: time, parked.
local function end_alone(id, publish)
  local f = redis.call('HMGET', session_key(id), 'status', 'header', 'signature', 'queues', 'timeout')
  redis.call('HSET', session_key(id), 'status', 'ended', 'ended', int(now))
  local runner, message, served = '', f[3], ''
  if not f[2] then redis.call('HSET', session_key(id), 'ender', '-')
  elseif has_parked(id) then
    runner, message = unpark(id)
    redis.call('HSET', session_key(id), 'ender', runner)
    for queue in string.gmatch(f[4], '[^,]+') do -- one that has workers, if any
      if served == '' or tonumber(redis.call('GET', slots_total_key(queue)) or '0') > 0 then served = queue end
    end
  else return end
  for _, value in ipairs({ id, runner, served, f[5], message }) do publish[#publish + 1] = value end
end

-- end_cancelled: a cancelled session of which nothing is claimed any more has ended.
local function end_cancelled(id, publish)
  if redis.call('HGET', session_key(id), 'status') == 'cancelled' and redis.call('HLEN', own_key(id)) == 0 then end_alone(id, publish) end
end

-- complete_again: whoever was to publish the completion of a session that was cancelled and has ended may have died before; a
-- second one changes nothing.
local function complete_again(id, publish)
  local f = redis.call('HMGET', session_key(id), 'status', 'header', 'timeout', 'signature')
  if f[1] ~= 'ended' or f[2] then return end
  for _, value in ipairs({ id, '', '', f[3], f[4] }) do publish[#publish + 1] = value end
end
