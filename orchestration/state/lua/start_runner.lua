-- A runner begins: it is registered under the life of this delivery of its message. It claims by settle_branch.
--
-- A message may be delivered twice. While the first life holds its lease the second is told to go; when the lease has
-- expired, or the first never began, the second takes over and what the first had claimed goes back.
--
-- ARGV: session runner life queue worker lease
--   lease    µs until the runner is taken for dead unless its worker renews
-- INCLUDE: time ready permits slots crash
-- Reply: verdict (go · ended · gone · duplicate · redundant), version, day, signature
--   redundant: the runner is not registered; it has left before, or was given up
-- Refusals: none
-- Stream: nothing

local f = redis.call('HMGET', session_key(session), 'status', 'version', 'day', 'signature', 'workflow')
if not f[1] then return { 'gone', '', '', '' } end
if f[1] == 'ended' then return { 'ended', f[2], f[3], f[4] or '' } end
local record = redis.call('HGET', runners_key(session), runner)
if not record then return { 'redundant', '', '', '' } end
local old_life, held, coming = string.match(record, '^(.*)|(%d+)|(%d)$')
if old_life ~= '' and old_life ~= life then
  if tonumber(redis.call('ZSCORE', inflight_key(queue), runner) or '0') > now then return { 'duplicate', '', '', '' } end
  return_claims(session, queue, old_life)
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
