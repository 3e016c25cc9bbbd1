-- Pause sessions: what runs goes on to the end of its branch, nothing more is claimed. They hold no runner, slot or permit then.
-- Sessions that open later are paused too, when a workflow or all are.
--
-- ARGV: why workflow by sessions*
--   why       session: these alone · workflow: those of this workflow · all
--   workflow  with why = workflow: its name; sessions of another one are left alone
--   by        who asks for it, for people; may be empty
--   sessions  at most some hundred in one call
-- INCLUDE: time ready permits parked slots turn emit pause
-- Reply: what it found of each session* (paused · again: for this reason, before · cancelled · ended · unopened: it is paused when
--        it is opened · closed: it has no live state any more · other: of another workflow)
-- Refusals: none
-- Stream: one entry for each session that is paused now

local MARK_SECONDS = 86400 -- as long as a message in work may be delivered again
local since = int(now) .. '|' .. by

local function pause(id)
  local key = session_key(id)
  local f = redis.call('HMGET', key, 'status', 'workflow', 'paused', 'queues', 'key')
  if not f[1] then
    if redis.call('EXISTS', closed_key(id)) == 1 then return 'closed' end
    if why ~= 'session' then return 'other' end
    return redis.call('SET', paused_session_key(id), since, 'NX', 'EX', MARK_SECONDS) and 'unopened' or 'again'
  end
  if why == 'workflow' and f[2] ~= workflow then return 'other' end
  if f[1] == 'ended' or f[1] == 'cancelled' then return f[1] end
  local reasons = f[3] or ','
  if string.find(reasons, ',' .. why .. ',', 1, true) then return 'again' end
  redis.call('HSET', key, 'paused', reasons .. why .. ',')
  if why == 'session' then redis.call('HSET', key, 'paused_by', since) end
  if f[1] ~= 'running' then return 'paused' end
  redis.call('HSET', key, 'status', 'paused')
  withdraw(id, f[4], levels_of(f[2], f[5]))
  end_turn(id)
  tell_status(id, 'paused')
  return 'paused'
end

if why == 'workflow' then redis.call('HSETNX', paused_key(), 'workflow:' .. workflow, since) end
if why == 'all' then redis.call('HSETNX', paused_key(), '*', since) end
local found = {}
for index = sessions, #ARGV do found[#found + 1] = pause(ARGV[index]) end
return found
