-- Limits change while everything runs: `given` is what settings and definitions say, `set` what an operator says, which
-- wins, and `limits` what is in force. Raising one makes room for those that wait; what is above a lowered one ends with the
-- branches that it is for. Needs: time, permits.

-- put_limit: this is in force for the level from now on; 0: no limit.
local function put_limit(level, most)
  local before = tonumber(redis.call('HGET', limits_key(), level) or '0')
  if before == most then return end
  if most > 0 then redis.call('HSET', limits_key(), level, int(most)) else redis.call('HDEL', limits_key(), level) end
  if most > 0 and not string.find(level, '^sessions') and redis.call('ZCARD', permits_key(level)) > most then
    redis.call('SADD', excess_key(), level)
  end
  if most == 0 or most > before and before > 0 then give_room(level) end
end

-- give_limit: a setting or a definition says so.
local function give_limit(level, most)
  if tonumber(redis.call('HGET', limits_given_key(), level) or '0') == most then return end
  if most > 0 then redis.call('HSET', limits_given_key(), level, int(most))
  else redis.call('HDEL', limits_given_key(), level) end
  if redis.call('HEXISTS', limits_set_key(), level) == 0 then put_limit(level, most) end
end

-- set_limit: an operator says so; 0: what settings and definitions say is in force again.
local function set_limit(level, most)
  if most > 0 then
    redis.call('HSET', limits_set_key(), level, int(most))
    put_limit(level, most)
  elseif redis.call('HDEL', limits_set_key(), level) == 1 then
    put_limit(level, tonumber(redis.call('HGET', limits_given_key(), level) or '0'))
  end
end

-- forget_key: a flow session with this key is no more; the limit that its definition gave goes with the last of them.
local function forget_key(key)
  if redis.call('HINCRBY', key_sessions_key(), key, -1) > 0 then return end
  redis.call('HDEL', key_sessions_key(), key)
  give_limit('key:' .. key, 0)
  give_limit('sessions:key:' .. key, 0)
end
