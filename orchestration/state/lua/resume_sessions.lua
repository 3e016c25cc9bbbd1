-- Resume sessions that were paused for a reason: those that have no other go on at once.
--
-- ARGV: why workflow sessions*
--   as in pause_sessions
-- INCLUDE: time ready permits parked slots emit pause
-- Reply: what it found of each session* (resumed · still: it is paused for another reason too · before: it was not paused for this
--        one · cancelled · ended · unopened: it will not be paused when it is opened · closed · other: of another workflow),
--        runners to publish (session, runner, queue, branch timeout, message)*
-- Refusals: none
-- Stream: one entry for each session that goes on

local publish = {}

local function resume(id)
  local key = session_key(id)
  local f = redis.call('HMGET', key, 'status', 'workflow', 'paused', 'queues', 'max_wait')
  if not f[1] then
    if redis.call('DEL', paused_session_key(id)) == 1 then return 'unopened' end
    return redis.call('EXISTS', closed_key(id)) == 1 and 'closed' or 'before'
  end
  if why == 'workflow' and f[2] ~= workflow then return 'other' end
  if f[1] == 'ended' or f[1] == 'cancelled' then return f[1] end
  local first, last = string.find(f[3] or '', ',' .. why .. ',', 1, true)
  if not first then return 'before' end
  local left = string.sub(f[3], 1, first) .. string.sub(f[3], last + 1)
  if why == 'session' then redis.call('HDEL', key, 'paused_by') end
  if left ~= ',' then
    redis.call('HSET', key, 'paused', left)
    return 'still'
  end
  redis.call('HDEL', key, 'paused')
  if f[1] ~= 'paused' then return 'resumed' end
  redis.call('HSET', key, 'status', 'running')
  if f[5] then redis.call('HSET', key, 'began', int(now)) end -- its branches wait from now on
  tell_status(id, 'running')
  touched = {}
  touch_all(f[4])
  hand_on_touched(id, publish, false)
  return 'resumed'
end

if why == 'workflow' then redis.call('HDEL', paused_key(), 'workflow:' .. workflow) end
if why == 'all' then redis.call('HDEL', paused_key(), '*') end
local found = {}
for index = sessions, #ARGV do found[#found + 1] = resume(ARGV[index]) end
return { found, publish }
