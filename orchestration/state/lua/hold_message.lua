-- One delivery of a task's message is at work: another one of the same message is to come again later.
--
-- ARGV: task holder lease
--   holder  the delivery; begins with its worker and process
--   lease   ms; `hold_sessions` renews it
-- INCLUDE:
-- Reply: 1, or 0: another delivery is at work
-- Refusals: none
-- Stream: nothing

local key = holder_key(task)
if redis.call('GET', key) == holder then return 1 end
return redis.call('SET', key, holder, 'NX', 'PX', lease) and 1 or 0
