-- A runner's process is known to be dead: what it had claimed may run again at once.
--
-- ARGV: session runner queue worker life death
--   worker   in which it ran
--   life     how the life begins that is given up, with worker and process: a runner of a chord may have another one by now
--   death    how its process ended, for people; '': nobody knows
-- INCLUDE: time ready permits parked slots crash cancel
-- Reply: units that went back*, runners to publish (session, runner, queue, branch timeout, message)*; of a session that was
--        cancelled and has ended by it, what shared/cancel.lua says
-- Refusals: none
-- Stream: nothing

local publish = {}
local record = redis.call('HGET', runners_key(session), runner)
local registered_life = record and string.match(record, '^(.*)|%d+|%d$') or ''
if string.sub(registered_life, 1, #life) ~= life then return { {}, {} } end
local units = expire(session, runner, queue, worker, death)
end_cancelled(session, publish)
hand_on_touched(session, publish, true)
return { units, publish }
