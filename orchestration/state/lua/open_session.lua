-- Open a flow session: from here on its state lives in Redis. The caller becomes its first runner, <session>.0, and claims by
-- settle_branch. Called again for a session that is open, it changes nothing.
--
-- ARGV: session life queue worker lease workflows workflow version day limit timeout weight priority attempt open signature queues rows nc nr nready njoins lists*
--   workflows most sessions running at once (0: no limit); above it the session is queued, and no runner registered
--   timeout   seconds that a branch may run
--   attempt   of the branches that are ready: 2 when the first of them was begun before and its process died
--   open      branches of the plan that have not settled
--   priority  0–9: a head start of 250 ms of virtual time for each
--   signature what is published when the session has ended
--   queues    all queues of the plan, with commas
--   rows      JSON array for the status channel, or ''
--   lists     (status, n) × nc, (action, result) × nr, (branch, queue) × nready, (branch, predecessors, queue, outcome) × njoins
-- INCLUDE: time ready permits slots emit
-- Reply: verdict (go · queued · exists · gone: it was closed), runners to publish (session, runner, queue, branch timeout)*
-- Refusals: none
-- Stream: one entry with the rows given

local PRIORITY_WAIT = 10000000 -- µs by which a priority shortens the wait of a queued session

if redis.call('EXISTS', session_key(session)) == 1 then return { 'exists', {} } end
if redis.call('EXISTS', closed_key(session)) == 1 then return { 'gone', {} } end
local key = session_key(session)
local queued = tonumber(workflows) > 0
  and (redis.call('ZCARD', sessions_running_key()) >= tonumber(workflows) or redis.call('EXISTS', sessions_queued_key()) == 1)
redis.call('HSET', key, 'status', queued and 'queued' or 'running', 'workflow', workflow, 'version', version, 'day', day,
  'limit', limit, 'timeout', timeout, 'weight', weight, 'priority', priority, 'vtime', first_vtime(tonumber(priority)),
  'open', open, 'failed', 0, 'rseq', 0, 'queues', queues, 'signature', signature)
redis.call('ZADD', sessions_open_key(), int(now), session)
local at = lists
for _ = 1, tonumber(nc) do
  redis.call('HINCRBY', key, 'n:' .. ARGV[at], ARGV[at + 1])
  at = at + 2
end
for _ = 1, tonumber(nr) do
  redis.call('HSET', results_key(session), ARGV[at], ARGV[at + 1])
  at = at + 2
end
for _ = 1, tonumber(nready) do
  make_ready(session, ARGV[at + 1], 'b:' .. ARGV[at] .. '|' .. attempt .. '|1|0')
  at = at + 2
end
for _ = 1, tonumber(njoins) do
  count_join(session, ARGV[at], tonumber(ARGV[at + 1]), ARGV[at + 2], ARGV[at + 3])
  at = at + 4
end
local blobs, publish = {}, {}
if rows ~= '' then blobs[1] = rows end
emit(session, day, worker, blobs, {})
if queued then
  redis.call('ZADD', sessions_queued_key(), int(now - PRIORITY_WAIT * tonumber(priority)), session)
  return { 'queued', {} }
end
redis.call('ZADD', sessions_running_key(), int(now), session)
redis.call('HSET', runners_key(session), session .. '.0', life .. '|0|1')
redis.call('HSET', key, 'pub:' .. queue, 1)
redis.call('ZADD', inflight_key(queue), int(now + tonumber(lease)), session .. '.0')
if worker ~= '' then redis.call('SADD', worker_runners_key(worker), queue .. '|' .. session .. '.0') end
hand_on_touched(session, workflow, publish, false)
return { 'go', publish }
