-- Redis is in this epoch from now on: what it holds is all that PostgreSQL does not know better. A later one stays. Who held
-- which session in a former one is forgotten: workers say it again, and who took one up has taken up what was dropped since.
--
-- ARGV: epoch
-- INCLUDE:
-- Reply: 1 it is so now, 0 Redis is in a later one
-- Refusals: none
-- Stream: nothing

local known = tonumber(redis.call('GET', epoch_key()) or '0')
if known > tonumber(epoch) then return 0 end
if known < tonumber(epoch) then redis.call('UNLINK', held_sessions_key()) end
redis.call('SET', epoch_key(), epoch)
return 1
