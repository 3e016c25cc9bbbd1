-- Remove a session's live state after its end is committed, or because it can't be trusted; what it still occupies is handed
-- on. Idempotent. Of several that complete it at the same moment one is to deliver the result. Whoever finds another one at that
-- asks again: when the lease is over, the other one has died.
--
-- ARGV: session holder lease epoch day worker rows
--   holder  who is to deliver; lease: µs that it takes at most
--   epoch   '': the session has ended, and is not to be opened again; else it is to be rebuilt in this epoch, and nothing is
--           done when that has begun
--   rows    what is told of its end (day, worker: as in record_rows), by the first that completes it; '': nothing
-- INCLUDE: time ready permits parked slots limits emit pause admit
-- Reply: runners to publish (session, runner, queue, branch timeout, message)*; 1, or 0: another one is to deliver the result
-- Refusals: none
-- Stream: one entry for each queued session that starts; before, one with the rows

local CLOSED_SECONDS = 86400 -- longer than a broker keeps a message in work from being delivered again
local freed, publish = {}, {}
if epoch ~= '' and redis.call('GET', epoch_key()) == epoch then return { {}, 0 } end
local closed = redis.call('GET', closed_key(session))
local other, expires = string.match(closed or '', '^(.*)|(%d+)$')
if rows ~= '' and not closed then emit(session, day, worker, { rows }) end
local is_holder = not other or other == holder or tonumber(expires) <= now
local fields = redis.call('HGETALL', session_key(session))
local known = {}
for index = 1, #fields, 2 do
  local name = fields[index]
  known[name] = fields[index + 1]
  if string.sub(name, 1, 5) == 'each:' then
    local action = string.sub(name, 6)
    redis.call('UNLINK', items_key(session, action), bits_key(session, action), item_results_key(session, action), returned_key(session, action))
  end
end
if known.workflow then
  local levels = levels_of(known.workflow, known.key)
  withdraw(session, known.queues, levels)
  for queue in string.gmatch(known.queues, '[^,]+') do
    freed[#freed + 1] = queue
    redis.call('UNLINK', ready_key(session, queue))
  end
  local records = redis.call('HGETALL', runners_key(session))
  for index = 1, #records, 2 do
    local held = string.match(records[index + 1], '^.*|(%d+)|%d$')
    if string.sub(records[index], -5) ~= ':call' and held then
      for place = 1, #freed do redis.call('ZREM', inflight_key(freed[place]), records[index]) end
      set_held(levels, records[index], tonumber(held), 0)
    end
  end
  drop_session(session, session_levels_of(known.workflow, known.key))
  if known.key then forget_key(known.key) end
end
redis.call('UNLINK', session_key(session), own_key(session), joins_key(session), results_key(session), runners_key(session), deferred_key(session),
  messages_key(session), parked_key(session), heeded_key(session), deaths_key(session))
redis.call('ZREM', sessions_open_key(), session)
if epoch == '' then
  redis.call('UNLINK', cancelled_key(session), paused_session_key(session))
  if is_holder and (known.workflow or closed or rows ~= '') then
    redis.call('SET', closed_key(session), holder .. '|' .. int(now + tonumber(lease)), 'EX', CLOSED_SECONDS)
  end
end
redis.call('ZREM', delayed_key(), session)
redis.call('ZREM', due_key(), session)
redis.call('ZREM', turns_key(), session)
hand_on(freed, publish)
admit(publish)
return { publish, is_holder and 1 or 0 }
