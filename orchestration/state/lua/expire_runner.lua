-- A runner's process is known to be dead: what it had claimed may run again at once.
--
-- ARGV: session runner queue worker
--   worker   only a runner that this worker registered is given up; a life begins with its worker's name
-- INCLUDE: time ready permits slots crash
-- Reply: units that went back*, runners to publish (session, runner, queue, branch timeout)*
-- Refusals: none
-- Stream: nothing

local record = redis.call('HGET', runners_key(session), runner)
if not record then return { {}, {} } end
local life = string.match(record, '^(.*)|%d+|%d$')
if string.sub(life, 1, #worker + 1) ~= worker .. '/' then return { {}, {} } end
local publish = {}
local workflow = redis.call('HGET', session_key(session), 'workflow')
local units = expire(session, runner, queue, worker)
hand_on_touched(session, workflow, publish, true)
return { units, publish }
