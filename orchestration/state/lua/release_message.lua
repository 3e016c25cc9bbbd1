-- This delivery of a task's message is not at work any more: the next one may be.
--
-- ARGV: task holder
--   holder  how its name begins; worker and process, where the process is dead
-- INCLUDE:
-- Reply: 1, or 0: it was not at work
-- Refusals: none
-- Stream: nothing

local key = holder_key(task)
if string.sub(redis.call('GET', key) or '', 1, #holder) ~= holder then return 0 end
return redis.call('DEL', key)
