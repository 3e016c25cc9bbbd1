-- A runner's process is known to be dead: what it had claimed may run again at once, and so may the runners that it was to
-- publish when it died.
--
-- ARGV: session runner queue worker life
--   worker   in which it ran
--   life     how the life begins that is given up, with worker and process: a runner of a chord may have another one by now
-- INCLUDE: time ready permits parked slots crash
-- Reply: units that went back*, runners to publish (session, runner, queue, branch timeout, message)*
-- Refusals: none
-- Stream: nothing

local publish = {}
local record = redis.call('HMGET', runners_key(session), runner, runner .. ':call')
local registered_life = record[1] and string.match(record[1], '^(.*)|%d+|%d$') or ''
if string.sub(registered_life, 1, #life) ~= life then
  resend(life, redis.call('GET', last_call_key(runner)), publish)
  return { {}, publish }
end
resend(life, record[2], publish)
local units = expire(session, runner, queue, worker)
hand_on_touched(session, publish, true)
return { units, publish }
