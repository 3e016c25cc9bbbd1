-- Open a flow session: from here on its state lives in Redis. The caller becomes its first runner, <session>.0, and claims by
-- settle_branch; but the runners of a chord session come by themselves, as the header of the chord that the caller publishes.
-- What the caller has run already, alone, is settled at once, as if it had claimed it here. Called again for a session that is
-- open, it changes nothing.
--
-- A session whose live state was lost is opened again by the same call, with all that PostgreSQL knows to have settled.
--
-- ARGV: session life queue worker lease workflows workflow version day limit timeout weight priority attempt open signature header queues cap key most_workflow most_key sessions_workflow sessions_key when_full deadline max_wait rebuilt sseq was_paused nr nready n lists*
--   workflows most sessions running at once (0: no limit) unless an operator has set a limit; above it the session is queued,
--             and no runner registered
--   timeout   seconds that a branch may run
--   attempt   of the branches that are ready: 2 when the first of them was begun before and its process died
--   open      branches of the plan
--   priority  0–9: a head start of 250 ms of virtual time for each
--   signature what is published when the session has ended
--   header    runners in the header of its chord; 0: its branches are counted here
--   queues    all queues of the plan, with commas
--   cap       bytes of results of one for_each that are kept in Redis
--   key       its concurrency key, or ''
--   most_…, sessions_…  what its definition says of the branches and of the sessions at once of its workflow and of its key;
--             0: nothing
--   when_full what happens when it can't run now: queue · reject: nothing is written · cancel_running, keep_newest: it is queued, and
--             older ones give way (shared/give_way.lua)
--   deadline  µs from now until what is left of it is ended; 0: it has none
--   max_wait  µs that it may be queued, and that each of its branches may wait before it begins; 0: as long as it takes
--   rebuilt   1: it was open before, and its live state was lost: numbers of its runners begin where no former one was
--   sseq      number of its last status that PostgreSQL knows
--   was_paused  1: PostgreSQL knows it as paused; where nothing else keeps it so, it is by itself
--   lists     (action, result) × nr, (branch, queue) × nready, (queue, settlement as in shared/settle.lua) × n, of units in an
--             order in which they could have been claimed
-- INCLUDE: time ready permits parked slots turn settle limits emit pause admit stop cancel give_way
-- Reply: verdict (go · ended: all has been settled, or it was cancelled before · queued · rejected · exists · gone: it was closed),
--        runners to publish, and completions of sessions that gave way (session, runner or '', queue, branch timeout, message)*
-- Refusals: none
-- Stream: one entry with the rows of the settlements

-- take: a unit that is ready is not any more: it has been run.
local function take(on, unit, value)
  if string.sub(unit, 1, 2) ~= 'c:' then
    redis.call('ZREM', ready_key(session, on), unit .. '|1|1|0')
    return
  end
  local action, start = string.match(unit, '^c:(.*):(%d+)$')
  local count = string.match(value, '^[^|]*|%d+|(%d+)|')
  redis.call('HINCRBY', items_key(session, action), 'running', 1)
  redis.call('HSET', items_key(session, action), 'cursor', int(start + count))
  show_items(session, action)
end

-- answer: the reply; those that wait for a limit which the definition has raised have been looked at.
local publish = {}
local function answer(verdict)
  if next(roomy) then hand_on({}, publish) end
  return { verdict, publish }
end

if redis.call('EXISTS', session_key(session)) == 1 then
  for id in string.gmatch(redis.call('HGET', session_key(session), 'ousted') or '', '%S+') do complete_again(id, publish) end
  return { 'exists', publish }
end
if redis.call('EXISTS', closed_key(session)) == 1 then return { 'gone', {} } end
local fields = session_key(session)
local cancelled = redis.call('EXISTS', cancelled_key(session)) == 1
give_limit('workflow:' .. workflow, tonumber(most_workflow))
give_limit('sessions:workflow:' .. workflow, tonumber(sessions_workflow))
give_limit('sessions', tonumber(workflows))
if key ~= '' then
  give_limit('key:' .. key, tonumber(most_key))
  give_limit('sessions:key:' .. key, tonumber(sessions_key))
end
admit(publish) -- those that waited for a limit which has just been raised are before it
local levels = session_levels_of(workflow, key ~= '' and key)
local queued = not cancelled and full_level(levels)
if queued and when_full == 'reject' then
  if key ~= '' and redis.call('HEXISTS', key_sessions_key(), key) == 0 then
    give_limit('key:' .. key, 0)
    give_limit('sessions:key:' .. key, 0)
  end
  return answer('rejected')
end
redis.call('HSET', fields, 'status', queued and 'queued' or 'running', 'workflow', workflow, 'version', version, 'day', day,
  'limit', limit, 'timeout', timeout, 'weight', weight, 'priority', priority, 'vtime', first_vtime(tonumber(priority)),
  'open', open, 'failed', 0, 'rseq', rebuilt == '1' and clock_reply[1] or 0, 'queues', queues, 'signature', signature)
if sseq ~= '0' then redis.call('HSET', fields, 'sseq', sseq) end
if rebuilt == '1' then redis.call('ZREM', held_sessions_key(), session) end
if header ~= '0' then redis.call('HSET', fields, 'header', header) end
if key ~= '' then
  redis.call('HSET', fields, 'key', key)
  redis.call('HINCRBY', key_sessions_key(), key, 1)
end
if deadline ~= '0' then
  local passes = int(now + tonumber(deadline))
  redis.call('HSET', fields, 'deadline', passes)
  redis.call('HSET', results_key(session), '@deadline', passes)
  redis.call('ZADD', due_key(), passes, session)
end
if max_wait ~= '0' then redis.call('HSET', fields, 'max_wait', max_wait, 'began', int(now)) end
local paused = reasons_at_start(session, workflow) or was_paused == '1' and ',session,' or nil
if paused then redis.call('HSET', fields, 'paused', paused) end
redis.call('ZADD', sessions_open_key(), int(now), session)
local at = lists
for _ = 1, tonumber(nr) do
  redis.call('HSET', results_key(session), ARGV[at], ARGV[at + 1])
  at = at + 2
end
for _ = 1, tonumber(nready) do
  make_ready(session, ARGV[at + 1], 'b:' .. ARGV[at] .. '|' .. attempt .. '|1|0')
  at = at + 2
end
local blobs = {}
for _ = 1, tonumber(n) do
  local on = ARGV[at]
  take(on, ARGV[at + 1], ARGV[at + 2])
  local rows = settle(session, on, at + 1, tonumber(cap))
  if rows ~= '' then blobs[#blobs + 1] = rows end
  at = skip_settlement(at + 1)
end
emit(session, day, worker, blobs)
local settled = branches_settled > 0 and redis.call('HINCRBY', fields, 'open', -branches_settled) == 0
if settled then queued = nil end
if queued then
  if when_full ~= 'queue' then
    local ousted = give_way(session, workflow, levels, queued, when_full, publish)
    if #ousted > 0 then redis.call('HSET', fields, 'ousted', table.concat(ousted, ' ')) end
  end
  if max_wait ~= '0' then redis.call('ZADD', due_key(), 'LT', int(now + tonumber(max_wait)), session) end
  redis.call('ZADD', queued_at(queued), queue_place(now, tonumber(priority)), session)
  if n ~= '0' then tell_status(session, 'queued') end
  return answer('queued')
end
if cancelled then redis.call('HSET', fields, 'cancelled', 1) elseif not settled then begin_session(session, levels) end
if settled or cancelled then
  redis.call('HSET', fields, 'status', 'ended', 'ender', session .. '.0', 'ended', int(now))
  return answer('ended')
end
if paused then
  redis.call('HSET', fields, 'status', 'paused')
  tell_status(session, 'paused')
end
if header ~= '0' then return answer('go') end
redis.call('HSET', runners_key(session), session .. '.0', life .. '|0|1')
redis.call('HSET', fields, 'pub:' .. queue, 1)
redis.call('ZADD', inflight_key(queue), int(now + tonumber(lease)), session .. '.0')
if worker ~= '' then redis.call('SADD', worker_runners_key(worker), queue .. '|' .. session .. '.0') end
hand_on_touched(session, publish, false)
return answer('go')
