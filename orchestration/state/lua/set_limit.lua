-- An operator sets a limit while everything runs, or leaves it to settings and definitions again. Those that a raised limit
-- lets in are handed on at once; what is above a lowered one ends with the branches that it is for. Repeated, it changes
-- nothing more.
--
-- ARGV: name most
--   name   global · workflow:<workflow> · key:<key>: branches at once · session:<session>: those of an open session ·
--          sessions · sessions:workflow:<workflow> · sessions:key:<key>: flow sessions at once
--   most   0: the operator's limit is no more
-- INCLUDE: time ready permits parked slots limits emit admit
-- Reply: 1, or 0: there is no such session; limit in force before and now (0: none), use,
--        runners to publish (session, runner, queue, branch timeout, message)*
-- Refusals: a session that is not open, or has ended
-- Stream: one entry for each queued session that starts

local publish = {}
local id = string.match(name, '^session:(.*)$')
if id then
  local key = session_key(id)
  local f = redis.call('HMGET', key, 'status', 'limit', 'limit_given', 'queues')
  if not f[1] or f[1] == 'ended' then return { 0, 0, 0, 0, {} } end
  local in_force = f[2]
  if most ~= '0' then
    in_force = most
    redis.call('HSETNX', key, 'limit_given', f[2])
  elseif f[3] then
    in_force = f[3]
    redis.call('HDEL', key, 'limit_given')
  end
  redis.call('HSET', key, 'limit', in_force)
  touch_all(f[4])
  hand_on_touched(id, publish, false)
  return { 1, tonumber(f[2]), tonumber(in_force), redis.call('HLEN', own_key(id)), publish }
end
local before = tonumber(redis.call('HGET', limits_key(), name) or '0')
set_limit(name, tonumber(most))
hand_on({}, publish)
admit(publish)
local in_use = redis.call('ZCARD', running_at(name))
return { 1, before, tonumber(redis.call('HGET', limits_key(), name) or '0'), in_use, publish }
