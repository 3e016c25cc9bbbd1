-- Settle the finished items of a chunk whose current item is slow, and hand back those that were not begun. The runner keeps
-- the current item, as a chunk of one. Repeated, it changes nothing.
--
-- ARGV: session queue day worker cap settlement*
--   cap         bytes of results of one for_each that are kept in Redis
--   settlement  one with the verb items and the rest keep, as in shared/settle.lua
-- INCLUDE: time ready permits parked slots settle emit
-- Reply: 1 done or done before, 0 refused: the chunk belongs to somebody else;
--        runners to publish (session, runner, queue, branch timeout, message)*
-- Refusals: none
-- Stream: one entry with the rows given

local unit, value, publish = ARGV[settlement], ARGV[settlement + 1], {}
if redis.call('HGET', own_key(session), unit) ~= value then
  local action, start = string.match(unit, '^c:(.*):(%d+)$')
  local life, attempt, ready_at, since = string.match(value, '^([^|]*)|(%d+)|%d+|%d+|(%d+)|(%d+)$')
  local settled = ARGV[skip_settlement(settlement) - 5]
  local kept = redis.call('HGET', own_key(session), 'c:' .. action .. ':' .. int(start + settled))
  return { kept == life .. '|' .. attempt .. '|1|0|' .. ready_at .. '|' .. since and 1 or 0, {} }
end
local rows = settle(session, queue, settlement, tonumber(cap))
emit(session, day, worker, rows ~= '' and { rows } or {})
hand_on_touched(session, publish, false)
return { 1, publish }
