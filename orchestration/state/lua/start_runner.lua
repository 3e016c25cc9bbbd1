-- A runner begins: it is registered under the life of this delivery of its message. It claims by settle_branch.
--
-- A message may be delivered twice. While the first life holds its lease the second is told to go; when the lease has
-- expired, or the first never began, the second takes over and what the first had claimed goes back.
--
-- A runner of a chord session comes without having been published from here the first time: it is parked, and competes for a
-- slot like all that wait. It is at work, on its way or parked, one of the three, until the session has ended.
--
-- ARGV: session runner life queue worker lease message
--   lease    µs until the runner is taken for dead unless its worker renews
--   message  of a runner of a chord session: what publishes it again; else empty
-- INCLUDE: time ready permits parked slots crash outage
-- Reply: verdict (go · parked · ended · gone · duplicate · redundant), version, day, signature,
--        runners to publish (session, runner, queue, branch timeout, message)*
--   parked: there is no slot, permit or work for it now; it is published again when there is
--   ended: only for the runner that ended the session; with the signature to publish, but in a chord session
--   redundant: the runner is not registered, and the session has no use for one more, or has ended
-- Refusals: none
-- Stream: nothing

-- compete: the runner is parked, and free slots are handed on, on this queue first. Returns whether it got one here: then its
-- message need not be published, for it has come already.
local function compete(queues, publish)
  park(session, runner)
  offer(session, queue)
  hand_on({ queue }, publish)
  if redis.call('ZSCORE', inflight_key(queue), runner) then
    for at = 2, #publish, 5 do
      if publish[at] == runner then
        for _ = 1, 5 do table.remove(publish, at - 1) end
        return true
      end
    end
  end
  touched = {}
  touch_all(queues)
  touched[queue] = nil
  hand_on_touched(session, publish, false)
  return false
end

local f = redis.call('HMGET', session_key(session), 'status', 'version', 'day', 'signature', 'workflow', 'header', 'queues', 'key')
if not f[1] then return { 'gone', '', '', '', {} } end
local is_chord, publish = f[6], {}
if f[1] == 'ended' then
  -- the runner that ended it died before its message was acknowledged: perhaps before the completion was published
  redis.call('HSETNX', session_key(session), 'ender', runner) -- none: it was cancelled while no runner of its chord was parked
  if redis.call('HGET', session_key(session), 'ender') ~= runner then return { 'redundant', '', '', '', {} } end
  return { 'ended', f[2], f[3], is_chord and '' or f[4], {} }
end
local record = redis.call('HGET', runners_key(session), runner)
if is_chord then
  redis.call('HSETNX', messages_key(session), runner, message)
  if record then
    -- it may have been published again meanwhile, for another queue
    if not redis.call('ZSCORE', inflight_key(queue), runner) then return { 'duplicate', '', '', '', {} } end
  elseif compete(f[7], publish) then
    record = redis.call('HGET', runners_key(session), runner)
  else
    return { 'parked', '', '', '', publish }
  end
elseif not record then
  -- given up before, or left; its process is here now, and what it was published for may still wait
  if not wants_runner(session, queue) then return { 'redundant', '', '', '', {} } end
  record = '|0|0'
end
local old_life, held, coming = string.match(record, '^(.*)|(%d+)|(%d)$')
if old_life ~= '' and old_life ~= life then
  local expiry = tonumber(redis.call('ZSCORE', inflight_key(queue), runner) or '0')
  if expiry > now or expiry > 0 and is_graced(tonumber(lease)) then return { 'duplicate', '', '', '', {} } end
  return_claims(session, queue, old_life, 'with its worker')
  redis.call('SREM', worker_runners_key(string.match(old_life, '^(.*)/')), queue .. '|' .. runner)
  if tonumber(held) > 0 then
    set_held(levels_of(f[5], f[8]), runner, tonumber(held), 0)
    held = '0'
  end
end
redis.call('HSET', runners_key(session), runner, life .. '|' .. held .. '|' .. coming)
redis.call('HDEL', runners_key(session), runner .. ':call')
redis.call('ZADD', inflight_key(queue), int(now + tonumber(lease)), runner)
if worker ~= '' then redis.call('SADD', worker_runners_key(worker), queue .. '|' .. runner) end
if next(roomy) then hand_on({}, publish) end
return { 'go', f[2], f[3], '', publish }
