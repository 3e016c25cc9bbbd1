-- Redis is in this epoch from now on: what it holds is all that PostgreSQL does not know better. A later one stays.
--
-- ARGV: epoch
-- INCLUDE:
-- Reply: 1 it is so now, 0 Redis is in a later one
-- Refusals: none
-- Stream: nothing

if tonumber(redis.call('GET', epoch_key()) or '0') > tonumber(epoch) then return 0 end
redis.call('SET', epoch_key(), epoch)
return 1
