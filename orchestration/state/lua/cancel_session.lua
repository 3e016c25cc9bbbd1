-- Cancel a flow session: when this returns, nothing of it can be claimed any more, on any worker. What is claimed is told to end
-- by the mark `cancelled:<session>`, at which its process looks; with the last claim the session ends. The work does not grow with
-- the units that wait: they stay where they are, and what never ran is counted when the session is completed.
--
-- A session that has no live state (its first branch runs, or it has not begun) only gets the mark: it is cancelled when it is
-- opened, and whoever runs its first branch sees that it is.
--
-- ARGV: session
-- INCLUDE: time ready permits parked slots turn emit pause admit cancel
-- Reply: what it found (cancelled: now · again: it was before · ended: all has settled, and it ends as it does · unopened: only
--        marked · closed: it has no live state any more), units claimed, what is to be published (session, runner or '', queue,
--        branch timeout, message)*
-- Refusals: none
-- Stream: nothing

local MARK_SECONDS = 86400 -- as long as a message in work may be delivered again

local f = redis.call('HMGET', session_key(session), 'status', 'cancelled', 'queues', 'workflow', 'signature', 'header', 'timeout', 'key')
if not f[1] then
  if redis.call('EXISTS', closed_key(session)) == 1 then return { 'closed', 0, {} } end
  return { redis.call('SET', cancelled_key(session), 1, 'NX', 'EX', MARK_SECONDS) and 'unopened' or 'again', 0, {} }
end
local publish = {}
if f[2] then
  -- whoever was to publish the completion may have died; a second one changes nothing
  if f[1] == 'ended' and not f[6] then publish = { session, '', '', f[7], f[5] } end
  return { 'again', redis.call('HLEN', own_key(session)), publish }
end
if f[1] == 'ended' then return { 'ended', 0, {} } end
redis.call('HSET', session_key(session), 'status', 'cancelled', 'cancelled', 1)
redis.call('SET', cancelled_key(session), 1, 'EX', MARK_SECONDS)
withdraw(session, f[3], levels_of(f[4], f[8]))
redis.call('ZREM', delayed_key(), session)
end_turn(session)
-- what was not queued counts at its levels until it is closed
if f[1] == 'queued' then drop_session(session, session_levels_of(f[4], f[8])) end
local claimed = redis.call('HLEN', own_key(session))
end_cancelled(session, publish)
return { 'cancelled', claimed, publish }
