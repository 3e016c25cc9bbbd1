-- What of a cancelled session may still begin another step or item: units claimed by runners that have not seen that it was
-- cancelled.
--
-- ARGV: session
-- INCLUDE:
-- Reply: number of units, of how many runners
-- Refusals: none
-- Stream: nothing

local heeds, units, runners = {}, 0, 0
for _, value in ipairs(redis.call('HVALS', own_key(session))) do
  local life = string.match(value, '^([^|]*)|')
  if heeds[life] == nil then
    heeds[life] = redis.call('SISMEMBER', heeded_key(session), life) == 1
    if not heeds[life] then runners = runners + 1 end
  end
  if not heeds[life] then units = units + 1 end
end
return { units, runners }
