-- Settle a branch that has waited too long before anybody began it. Nothing of it runs, so it needs no permit, no slot and no runner.
-- Refused when it was claimed meanwhile, or may not be settled just now; repeated, it changes nothing.
--
-- ARGV: session queue day worker cap settlement*
--   cap         bytes of results of one for_each that are kept in Redis
--   settlement  one with the verb done or defer, as in shared/settle.lua, of a unit that wake_sessions found overdue
-- INCLUDE: time ready permits parked slots turn settle emit cancel
-- Reply: 1 settled, 0 refused; what is to be published (session, runner or '', queue, branch timeout, message)*
-- Refusals: none
-- Stream: one entry with the rows given

local member, publish = ARGV[settlement] .. '|1|1|0', {}
local f = redis.call('HMGET', session_key(session), 'status', 'max_wait', 'began', 'deadline', 'turn', 'queues')
local at = redis.call('ZSCORE', ready_key(session, queue), member)
if f[1] ~= 'running' or not f[2] or not at or f[4] and now >= tonumber(f[4]) then return { 0, {} } end
if math.max(tonumber(at), tonumber(f[3])) + tonumber(f[2]) > now then return { 0, {} } end
redis.call('ZREM', ready_key(session, queue), member)
local rows = settle(session, queue, settlement, tonumber(cap))
emit(session, day, worker, rows ~= '' and { rows } or {})
if f[5] and is_turn_over(session, f[5]) then
  end_turn(session)
  touch_all(f[6])
end
if branches_settled > 0 and redis.call('HINCRBY', session_key(session), 'open', -branches_settled) == 0 then end_alone(session, publish)
else hand_on_touched(session, publish, false) end
return { 1, publish }
