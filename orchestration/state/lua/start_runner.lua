-- A runner begins: it is registered under the life of this delivery of its message. It claims by settle_branch.
--
-- A message may be delivered twice. While the first life holds its lease the second is told to go; when the lease has
-- expired, or the first never began, the second takes over and what the first had claimed goes back.
--
-- ARGV: session runner life queue worker lease
--   lease    µs until the runner is taken for dead unless its worker renews
-- INCLUDE: time ready permits slots crash
-- Reply: verdict (go · ended · gone · duplicate · redundant), version, day, signature
--   ended: only for the runner that ended the session
--   redundant: the runner is not registered, and the session has no use for one more
-- Refusals: none
-- Stream: nothing

local f = redis.call('HMGET', session_key(session), 'status', 'version', 'day', 'signature', 'workflow')
if not f[1] then return { 'gone', '', '', '' } end
if f[1] == 'ended' then
  -- the runner that ended it died before its message was acknowledged: perhaps before the completion was published
  if redis.call('HGET', session_key(session), 'ender') == runner then return { 'ended', f[2], f[3], f[4] or '' } end
  return { 'redundant', '', '', '' }
end
local record = redis.call('HGET', runners_key(session), runner)
if not record then
  -- given up before, or left; its process is here now, and what it was published for may still wait
  if not wants_runner(session, queue) then return { 'redundant', '', '', '' } end
  record = '|0|0'
end
local old_life, held, coming = string.match(record, '^(.*)|(%d+)|(%d)$')
if old_life ~= '' and old_life ~= life then
  if tonumber(redis.call('ZSCORE', inflight_key(queue), runner) or '0') > now then return { 'duplicate', '', '', '' } end
  return_claims(session, queue, old_life)
  redis.call('SREM', worker_runners_key(string.match(old_life, '^(.*)/')), queue .. '|' .. runner)
  if tonumber(held) > 0 then
    set_held(f[5], runner, tonumber(held), 0)
    held = '0'
  end
end
redis.call('HSET', runners_key(session), runner, life .. '|' .. held .. '|' .. coming)
redis.call('HDEL', runners_key(session), runner .. ':call')
redis.call('ZADD', inflight_key(queue), int(now + tonumber(lease)), runner)
if worker ~= '' then redis.call('SADD', worker_runners_key(worker), queue .. '|' .. runner) end
return { 'go', f[2], f[3], '' }
