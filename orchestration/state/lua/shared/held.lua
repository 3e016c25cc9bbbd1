-- expire_held(): the key goes when the last of what is held has passed: perhaps nobody calls then.
local function expire_held()
  local last = redis.call('ZRANGE', held_sessions_key(), -1, -1, 'WITHSCORES')
  if last[2] then redis.call('PEXPIREAT', held_sessions_key(), int(math.ceil(last[2] / 1000))) end
end
