-- stop: nothing of the session is claimed from here on; it ends, by `why`, with what is claimed (shared/cancel.lua). What runs of it
-- is told by the mark; at its deadline it knows by itself. It has live state, has not ended, and was not stopped before. Needs: time, permits, slots, turn, admit.
--   why   asked: somebody cancelled it · place <session> <level>, newer <session> <level>: it gave way (shared/give_way.lua) ·
--         deadline: that has passed · wait - <level>: it was queued for too long
local MARK_SECONDS = 86400 -- as long as a message in work may be delivered again

local function stop(id, why)
  local f = redis.call('HMGET', session_key(id), 'status', 'queues', 'workflow', 'key')
  redis.call('HSET', session_key(id), 'status', 'cancelled', 'cancelled', why)
  if why ~= 'deadline' then redis.call('SET', cancelled_key(id), 1, 'EX', MARK_SECONDS) end
  withdraw(id, f[2], levels_of(f[3], f[4]))
  redis.call('ZREM', delayed_key(), id)
  redis.call('ZREM', due_key(), id)
  end_turn(id)
  -- what was not queued counts at its levels until it is closed
  if f[1] == 'queued' then drop_session(id, session_levels_of(f[3], f[4])) end
end
