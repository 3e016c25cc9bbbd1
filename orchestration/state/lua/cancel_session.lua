-- Cancel a flow session: when this returns, nothing of it can be claimed any more, on any worker. What is claimed is told to end
-- by the mark `cancelled:<session>`, at which its process looks; with the last claim the session ends. The work does not grow with
-- the units that wait: they stay where they are, and what never ran is counted when the session is completed.
--
-- A session that has no live state (its first branch runs, or it has not begun) only gets the mark: it is cancelled when it is
-- opened, and whoever runs its first branch sees that it is.
--
-- ARGV: session
-- INCLUDE: time ready permits parked slots turn emit pause admit stop cancel
-- Reply: what it found (cancelled: now · again: it was before · stopped: it ends by itself, at its
--        deadline, or since it gave way or waited too long · ended: all has settled, and it ends as it does · unopened: only
--        marked · closed: it has no live state any more), units claimed, what is to be published (session, runner or '', queue,
--        branch timeout, message)*
-- Refusals: none
-- Stream: nothing

local f = redis.call('HMGET', session_key(session), 'status', 'cancelled')
if not f[1] then
  if redis.call('EXISTS', closed_key(session)) == 1 then return { 'closed', 0, {} } end
  return { redis.call('SET', cancelled_key(session), 1, 'NX', 'EX', MARK_SECONDS) and 'unopened' or 'again', 0, {} }
end
local publish = {}
if f[2] then
  complete_again(session, publish)
  return { f[2] == 'asked' and 'again' or 'stopped', redis.call('HLEN', own_key(session)), publish }
end
if f[1] == 'ended' then return { 'ended', 0, {} } end
stop(session, 'asked')
local claimed = redis.call('HLEN', own_key(session))
end_cancelled(session, publish)
return { 'cancelled', claimed, publish }
