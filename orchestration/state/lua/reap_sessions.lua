-- Look at some of the open sessions, and repair those that would be left alone for ever: a message was lost, or a process died with
-- what it was told to do. One caller at a time over the fleet is the reaper, as long as it comes again within its lease; a place is
-- kept from call to call, so that all open sessions are looked at in turn.
--
-- ARGV: reaper lease most completions
--   reaper  who calls
--   lease   µs that it is the reaper; another one is told so meanwhile
--   most    sessions looked at in one call, about
--   completions  most that are published by one call
-- INCLUDE: time ready permits parked slots turn claim emit pause admit stop cancel overdue reap
-- Reply: 1, or 0: another one is the reaper; 1 when all sessions have been looked at since the first call; repairs (cause, session, µs
--        since when, 0: unknown)*; runners to publish, and completions of sessions that have ended (session, runner or '', queue, branch
--        timeout, message)*
--   cause  completion: it has ended and is not completed, whose completion is published again · end: it was stopped and nothing of it
--          is claimed · admission: it is queued, with room for it · wake-up, time limit: nobody looks at the clock for it · header: no
--          runner of its chord has ever come · runner: it has ready work, and no runner on its way · permit: it waits for a permit
--          that is there
-- Refusals: none
-- Stream: one entry for each queued session that starts

local FIELDS = { 'status', 'queues', 'workflow', 'key', 'priority', 'header', 'deadline', 'max_wait', 'timeout', 'signature', 'ended',
  'again', 'complete_at' }

local mark = redis.call('HMGET', reaper_key(), 'holder', 'place')
if mark[1] and mark[1] ~= reaper then return { 0, 1, {}, {} } end

local publish, repairs, queues = {}, {}, {}
local function note(cause, id, since)
  redis.call('HINCRBY', repairs_key(), cause, 1)
  for _, value in ipairs({ cause, id, since and int(now - since) or '0' }) do repairs[#repairs + 1] = value end
end

local function look(id)
  local values, f = redis.call('HMGET', session_key(id), unpack(FIELDS)), {}
  for place, name in ipairs(FIELDS) do f[name] = values[place] or nil end
  if f.status == 'ended' then
    if #publish < 5 * tonumber(completions) then complete_late(id, f, publish, note) end
  elseif f.status == 'cancelled' then
    end_stopped(id, publish, note)
  elseif f.status == 'queued' then
    wake_late(id, f, note)
    admit_late(id, f, note)
  elseif f.status then
    wake_late(id, f, note)
    if f.status == 'running' then
      if f.header then forget_header(id, f, queues, note) end
      serve_late(id, f, queues, note)
    end
  end
end

local found = redis.call('ZSCAN', sessions_open_key(), mark[2] or '0', 'COUNT', most)
for at = 1, #found[2], 2 do look(found[2][at]) end
redis.call('HSET', reaper_key(), 'holder', reaper, 'place', found[1])
redis.call('PEXPIRE', reaper_key(), int(math.ceil(tonumber(lease) / 1000)))
hand_on(queues, publish)
admit(publish)
return { 1, found[1] == '0' and 1 or 0, repairs, publish }
