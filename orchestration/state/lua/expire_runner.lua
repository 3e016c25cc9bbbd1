-- A runner's process is known to be dead: what it had claimed may run again at once.
--
-- ARGV: session runner queue worker life
--   worker   in which it ran
--   life     how the life begins that is given up, with worker and process: a runner of a chord may have another one by now
-- INCLUDE: time ready permits parked slots crash
-- Reply: units that went back*, runners to publish (session, runner, queue, branch timeout, message)*
-- Refusals: none
-- Stream: nothing

local record = redis.call('HGET', runners_key(session), runner)
if not record then return { {}, {} } end
local registered_life = string.match(record, '^(.*)|%d+|%d$')
if string.sub(registered_life, 1, #life) ~= life then return { {}, {} } end
local publish = {}
local workflow = redis.call('HGET', session_key(session), 'workflow')
local units = expire(session, runner, queue, worker)
hand_on_touched(session, workflow, publish, true)
return { units, publish }
