-- Messages that are held and hold a text, such as the id of their task; a part of all in each call.
--
-- KEYS: none
-- ARGV: text cursor
--   cursor  0, then what the call before gave, until that is 0 again
-- Reply: cursor, then delivery and message of each that was found. One may come twice

local found = redis.call('HSCAN', 'unacked', ARGV[2], 'COUNT', 100)
local reply, pairs = { found[1] }, found[2]
for place = 1, #pairs, 2 do
  if string.find(pairs[place + 1], ARGV[1], 1, true) then
    local length, rest = string.match(pairs[place + 1], '^(%d+):()')
    if length then
      reply[#reply + 1] = pairs[place]
      reply[#reply + 1] = string.sub(pairs[place + 1], rest + length)
    end
  end
end
return reply
