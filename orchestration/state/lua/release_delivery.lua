-- Whoever was to deliver the result of a session that was closed is dead: the next one that asks may.
--
-- ARGV: session holder
--   holder  how the name of whoever delivers begins, with worker and process
-- INCLUDE:
-- Reply: 1, or 0: somebody else delivers it, or nobody
-- Refusals: none
-- Stream: nothing

local key = closed_key(session)
if string.sub(redis.call('GET', key) or '', 1, #holder) ~= holder then return 0 end
redis.call('SET', key, '-|0', 'KEEPTTL')
return 1
