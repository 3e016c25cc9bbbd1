-- Open a flow session: from here on its state lives in Redis. The caller becomes its first runner, <session>.0, and claims by
-- settle_branch. Called again for a session that is open, it changes nothing.
--
-- ARGV: session life queue worker lease workflow version day limit timeout weight priority open signature queues rows nc nr nready njoins lists*
--   timeout   seconds that a branch may run
--   open      branches of the plan that have not settled
--   priority  0–9: a head start of 250 ms of virtual time for each
--   signature what is published when the session has ended
--   queues    all queues of the plan, with commas
--   rows      JSON array for the status channel, or ''
--   lists     (status, n) × nc, (action, result) × nr, (branch, queue) × nready, (branch, predecessors, queue, outcome) × njoins
-- INCLUDE: time ready permits slots emit
-- Reply: verdict (go · exists), runners to publish (session, runner, queue, branch timeout)*
-- Refusals: none
-- Stream: one entry with the rows given

if redis.call('EXISTS', session_key(session)) == 1 then return { 'exists', {} } end
local key = session_key(session)
local start = tonumber(redis.call('GET', clock_key()) or '0') - HEAD_START * (1 + tonumber(priority))
redis.call('HSET', key, 'status', 'running', 'workflow', workflow, 'version', version, 'day', day, 'limit', limit, 'timeout', timeout,
  'weight', weight, 'vtime', int(start), 'open', open, 'failed', 0, 'rseq', 0, 'queues', queues, 'signature', signature)
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
  make_ready(session, ARGV[at + 1], 'b:' .. ARGV[at] .. '|1|1|0')
  at = at + 2
end
for _ = 1, tonumber(njoins) do
  count_join(session, ARGV[at], tonumber(ARGV[at + 1]), ARGV[at + 2], ARGV[at + 3])
  at = at + 4
end
redis.call('HSET', runners_key(session), session .. '.0', life .. '|0|1')
redis.call('HSET', key, 'pub:' .. queue, 1)
redis.call('ZADD', inflight_key(queue), int(now + tonumber(lease)), session .. '.0')
if worker ~= '' then redis.call('SADD', worker_runners_key(worker), queue .. '|' .. session .. '.0') end
local blobs, publish = {}, {}
if rows ~= '' then blobs[1] = rows end
emit(session, day, worker, blobs, {})
hand_on_touched(session, workflow, publish, false)
return { 'go', publish }
