-- Settle what a runner has finished, and give it what comes next, in one step.
--
-- Nothing between the two can be lost: statuses, joins, what became ready, the status update, the permits and the slot all
-- change here, together. A settlement whose claim belongs to somebody else is refused and changes nothing. A repeated call
-- (its reply was lost) has the number of the last one and gets the same reply.
--
-- ARGV: session runner life queue worker mode want chunks elapsed call cap n settlements*
--   life         who runs: the runner in one delivery of its message; a later delivery has another
--   mode         go: claim on · tick: give way to one owed ≥ 250 ms · slice: give way to one owed at all ·
--                crowd: a message waits in the broker's queue, one runner in 40 ms gives way · leave: the worker stops ·
--                over: the deadline of the session has passed, by the runner's clock
--   want         permits to hold after the call; chunks: most items in one claim, ,<action>=<n>,… (1 where none is named); elapsed: µs of the slot used and not yet charged
--   cap          bytes of results of one for_each that are kept in Redis
--   settlements  n of them, as in shared/settle.lua
-- INCLUDE: time ready permits parked slots turn claim settle emit
-- Reply: verdict, claims (unit, value, info)*, runners to publish (session, runner, queue, branch timeout, message)*, refused units*, signature
--   verdict      go: run the claims · hold: nothing more now, finish what you hold · drain: others are owed the slot, or the
--                worker stops; finish what you hold · wait: the status channel is full, come again · stop: nothing to claim, the
--                runner has left · yield: it gave way and has left · ended: the session has ended, and by whoever reads this is to
--                be completed · gone: the session has ended before, or is no more · lost: the runner is not registered under this
--                life. A runner of a chord session that has left by stop or yield is parked
--   signature    with ended: what is to be published; empty in a chord session
-- Refusals: none
-- Stream: one entry with the rows given

local GIVE_WAY_AFTER = 250000 -- µs owed; below it two sessions swap at every tick (measured: 19 messages a second against 6–8)

local record = redis.call('HMGET', runners_key(session), runner, runner .. ':call')
local registered_life, permits, coming
if record[1] then registered_life, permits, coming = string.match(record[1], '^(.*)|(%d+)|(%d)$') end
if registered_life ~= life then
  local last = redis.call('GET', last_call_key(runner))
  if last then
    local stored = cmsgpack.unpack(last)
    if stored[1] == life .. '|' .. call then return stored[2] end
  end
  local status = redis.call('HGET', session_key(session), 'status')
  return { status and status ~= 'ended' and 'lost' or 'gone', {}, {}, {}, '' }
end
if record[2] then
  local stored = cmsgpack.unpack(record[2])
  if stored[1] == life .. '|' .. call then return stored[2] end
end

local fields = redis.call('HMGET', session_key(session), 'workflow', 'day', 'limit', 'queues', 'header', 'status', 'key', 'turn', 'deadline')
local is_over = mode == 'over' or fields[9] and now >= tonumber(fields[9])
local levels, day, limit, is_chord = levels_of(fields[1], fields[7]), fields[2], tonumber(fields[3]), fields[5]
local before = tonumber(permits)
local held = before
if coming == '1' then
  redis.call('HINCRBY', session_key(session), 'pub:' .. queue, -1)
  held = 0 -- its permit was taken when it was published; it holds no unit yet
end

local blobs, refused, claims, publish = {}, {}, {}, {}
local at = settlements
for _ = 1, tonumber(n) do
  if redis.call('HGET', own_key(session), ARGV[at]) == ARGV[at + 1] then
    local rows = settle(session, queue, at, tonumber(cap))
    if rows ~= '' then blobs[#blobs + 1] = rows end
    held = held - 1
  else
    refused[#refused + 1] = ARGV[at]
  end
  at = skip_settlement(at)
end

local ended = branches_settled > 0 and redis.call('HINCRBY', session_key(session), 'open', -branches_settled) == 0
if fields[6] == 'cancelled' and redis.call('HLEN', own_key(session)) == 0 then ended = true end
local vtime
if elapsed ~= '0' then vtime = charge(session, queue, tonumber(elapsed)) end
local verdict = 'go'
if ended then
  verdict = 'ended'
  redis.call('HSET', session_key(session), 'status', 'ended', 'ender', runner, 'ended', int(now))
  if is_over then redis.call('HSETNX', session_key(session), 'cancelled', 'deadline') end
elseif is_chord and fields[6] == 'ended' then
  verdict = 'gone'
elseif mode == 'leave' or mode == 'over' then
  verdict = 'stop'
elseif mode == 'tick' or mode == 'slice' then
  local behind = owed(session, queue, levels, vtime or tonumber(redis.call('HGET', session_key(session), 'vtime')))
  if behind and (mode == 'slice' and behind > 0 or behind >= GIVE_WAY_AFTER) then verdict = 'yield' end
elseif mode == 'crowd' then
  if redis.call('SET', crowded_key(queue), runner, 'NX', 'PX', 40) then verdict = 'yield' end
end
-- one look for both, which hardly ever finds anything
local is_special = verdict == 'go' and redis.call('EXISTS', status_full_key(), excess_key()) > 0
if verdict == 'go' and (fields[6] ~= 'running' or is_over) then
  if held > 0 then verdict = 'hold' else verdict = 'stop' end
elseif is_special and redis.call('EXISTS', status_full_key()) == 1 then
  if held > 0 then verdict = 'hold' else verdict = 'wait' end
elseif verdict == 'go' then
  local strict = is_special and is_strict()
  local most, turn, used = tonumber(want), fields[8], redis.call('HLEN', own_key(session))
  if turn and turn ~= queue and is_turn_over(session, turn) then
    end_turn(session)
    turn = nil
  end
  if not turn and used + most - held >= limit and string.find(fields[4], ',', 1, true) then
    turn = give_turn(session, queue, fields[4])
  end
  if turn and turn ~= queue then most = math.min(most, held + limit - 1 - used) end
  held = claim(session, levels, queue, life, limit, most, chunks, held, before, strict, claims)
  if turn == queue and #claims > 0 then end_turn(session) end
  if #claims == 0 then
    if held > 0 then verdict = 'hold' else verdict = 'stop' end
  end
elseif held > 0 and verdict ~= 'ended' and verdict ~= 'gone' then
  verdict = 'drain'
end

local stays = verdict == 'go' or verdict == 'hold' or verdict == 'drain' or verdict == 'wait'
if stays then
  set_held(levels, runner, before, held)
  if held ~= before or coming == '1' then redis.call('HSET', runners_key(session), runner, life .. '|' .. held .. '|0') end
else
  leave(session, levels, runner, queue, worker, before)
  if is_chord and (verdict == 'stop' or verdict == 'yield') then park(session, runner) end
end
emit(session, day, worker, blobs)
touch_all(fields[4])
hand_on_touched(session, publish, held < before or not stays)

local signature = ''
if ended and not is_chord then signature = redis.call('HGET', session_key(session), 'signature') or '' end
local reply = { verdict, claims, publish, refused, signature }
local stored = cmsgpack.pack({ life .. '|' .. call, reply })
if stays then redis.call('HSET', runners_key(session), runner .. ':call', stored)
else redis.call('SET', last_call_key(runner), stored, 'PX', 120000) end
return reply
