-- May a call begin now, by its rate limits? Each of them gives a token, or none does.
--
-- A limit lets a call begin each `interval` µs, and after a pause up to `burst` of them at once (the generic cell rate
-- algorithm; `tat` is the time at which all of its tokens are there again). A call that must wait has a place in the line of
-- each limit: who comes later is due later. Its tokens are taken when it begins, at Redis's time, so that no two begin too
-- close, however late one of them comes. The same call again, because its reply was lost, changes nothing more.
--
-- ARGV: token limits*
--   token    of this attempt of the task
--   limits   (name, interval, burst)*
-- INCLUDE: time
-- Reply: µs to wait (0: it begins), the time in µs: when it has begun, by what it began
-- Refusals: none
-- Stream: nothing

local PLACE_KEPT = 600000000 -- µs for which a place is kept when it is due
local BEGUN_KEPT = 60000000  -- µs for which it is known that a call has begun: calls are repeated for about 20 s

local place = redis.call('GET', rate_place_key(token))
if place and string.sub(place, 1, 1) == 'b' then return { 0, tonumber(string.sub(place, 2)) } end
local states, due = {}, math.max(now, tonumber(place or '0'))
for at = limits, #ARGV, 3 do
  local f = redis.call('HMGET', rate_key(ARGV[at]), 'tat', 'line')
  local state = { key = rate_key(ARGV[at]), interval = tonumber(ARGV[at + 1]), tat = tonumber(f[1] or '0'), line = tonumber(f[2] or '0') }
  local spare = state.interval * (tonumber(ARGV[at + 2]) - 1)
  due = math.max(due, (place and state.tat or math.max(state.tat, state.line)) - spare)
  states[#states + 1] = state
end
for _, state in ipairs(states) do
  -- a call that has a place already is in `line`
  if not place then state.line = math.max(state.line, state.tat, due) + state.interval end
  if due == now then state.tat = math.max(state.tat, now) + state.interval end
  redis.call('HSET', state.key, 'tat', int(state.tat), 'line', int(state.line))
  redis.call('PEXPIRE', state.key, int(math.ceil((math.max(state.tat, state.line) - now + PLACE_KEPT) / 1000)))
end
if due == now then redis.call('SET', rate_place_key(token), 'b' .. int(now), 'PX', int(BEGUN_KEPT / 1000))
elseif not place then redis.call('SET', rate_place_key(token), int(due), 'PX', int(math.ceil((due - now + PLACE_KEPT) / 1000))) end
return { due - now, now }
