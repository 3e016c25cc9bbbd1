-- Give up what nobody renews: workers whose lease is over, and runners (published or running) whose lease is over. Nothing is
-- given up before everybody has had the time to renew, when Redis was away.
--
-- ARGV: lease most
--   lease  µs that a lease lasts; most: runners given up in one call
-- INCLUDE: time ready permits parked slots crash fleet cancel outage
-- Reply: runners to publish (session, runner, queue, branch timeout, message)*, workers forgotten*, runners given up (runner, cause)*
--   cause  message: it was published and has not begun · lease: it was at work · closed: its session is no more. These and `worker` are
--          counted as repairs
-- Refusals: none
-- Stream: nothing

local publish, workers, runners, handed = {}, {}, {}, {}
local function count(cause, number) redis.call('HINCRBY', repairs_key(), cause, number) end

lease = tonumber(lease)
if was_away(lease) then redis.call('HSET', outage_key(), 'until', int(now + lease)) end
redis.call('HSET', outage_key(), 'looked', int(now))
if is_graced(lease) then return { {}, {}, {} } end
for _, name in ipairs(redis.call('ZRANGEBYSCORE', workers_key(), '-inf', int(now), 'LIMIT', 0, 100)) do
  workers[#workers + 1] = name
  forget_worker(name)
  redis.call('DEL', worker_runners_key(name))
end
if #workers > 0 then
  count('worker', #workers)
  resend(publish) -- theirs were perhaps never published
end
for _, queue in ipairs(redis.call('SMEMBERS', queues_key())) do
  for _, runner in ipairs(redis.call('ZRANGEBYSCORE', inflight_key(queue), '-inf', int(now), 'LIMIT', 0, tonumber(most))) do
    local id = string.match(runner, '^(.*)%.%d+$')
    local record = redis.call('HGET', runners_key(id), runner)
    local cause = not record and 'closed' or string.sub(record, 1, 1) == '|' and 'message' or 'lease'
    if record then count(cause, 1) end
    touched = {}
    local units = expire(id, runner, queue, '', 'with its worker')
    if #units > 0 then end_cancelled(id, publish) end
    for name in pairs(touched) do
      offer(id, name)
      handed[#handed + 1] = name
    end
    runners[#runners + 1] = runner
    runners[#runners + 1] = cause
  end
end
hand_on(handed, publish)
return { publish, workers, runners }
