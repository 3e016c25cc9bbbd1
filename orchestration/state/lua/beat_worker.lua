-- A worker lives: its slots are registered, the leases of the runners in it are renewed.
--
-- ARGV: worker lease global workflows slots queues*
--   lease   µs from now until the worker is taken for dead; global, workflows: the fleet's limits of branches and
--           of flow sessions at once (0: none)
--   slots   processes, threads or greenlets of its pool, that serve every one of its queues
-- INCLUDE: time ready permits parked slots limits emit admit fleet
-- Reply: runners to publish (session, runner, queue, branch timeout, message)*
-- Refusals: none
-- Stream: one entry for each queued session that starts

local expiry, changed, publish = int(now + tonumber(lease)), {}, {}
give_limit('global', tonumber(global))
give_limit('sessions', tonumber(workflows))
redis.call('ZADD', workers_key(), expiry, worker)
for index = queues, #ARGV do
  local queue = ARGV[index]
  local known = tonumber(redis.call('HGET', slots_key(queue), worker) or '0')
  if known ~= tonumber(slots) then
    redis.call('HSET', slots_key(queue), worker, slots)
    redis.call('INCRBY', slots_total_key(queue), int(tonumber(slots) - known))
    redis.call('SADD', worker_queues_key(worker), queue)
    redis.call('SADD', queues_key(), queue)
  end
  changed[#changed + 1] = queue
end
for _, member in ipairs(redis.call('SMEMBERS', worker_runners_key(worker))) do
  local queue, runner = string.match(member, '^(.*)|([^|]*)$')
  if redis.call('ZSCORE', inflight_key(queue), runner) then redis.call('ZADD', inflight_key(queue), expiry, runner)
  else redis.call('SREM', worker_runners_key(worker), member) end
end
for _, level in ipairs(redis.call('SPOP', unfinished_key(), 1000)) do give_room(level) end
give_room('sessions')
hand_on(changed, publish)
admit(publish)
return publish
