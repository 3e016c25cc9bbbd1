-- return_claims: what a dead life had claimed may run again, with one attempt more; a chunk goes back as single items, so
-- that an item which kills its process can be told from its neighbours. How the life ended is kept for each; of a session that
-- is traced also when each claim was made and lost, and when a branch first began. Returns the units.
-- Needs: time, ready, slots.
local function return_claims(id, queue, life, death)
  local all = redis.call('HGETALL', own_key(id))
  local units = {}
  local is_traced = redis.call('HEXISTS', results_key(id), '@trace') == 1
  for index = 1, #all, 2 do
    local unit = all[index]
    local owner, attempt, count, retry, ready_at, since = string.match(all[index + 1], '^([^|]*)|(%d+)|(%d+)|(%d+)|(%d+)|(%d+)$')
    if owner == life then
      if is_traced then
        redis.call('HSET', deaths_key(id), '@' .. unit, since .. '|' .. int(now) .. '|' .. life)
        if string.sub(unit, 1, 2) == 'b:' then redis.call('HSETNX', results_key(id), '@began:' .. string.sub(unit, 3), since) end
      end
      units[#units + 1] = unit
      redis.call('HDEL', own_key(id), unit)
      local action, start = string.match(unit, '^c:(.*):(%d+)$')
      if action then
        for item = tonumber(start), tonumber(start) + tonumber(count) - 1 do
          local each = 'c:' .. action .. ':' .. int(item)
          put_back(id, queue, each, int(attempt + 1), '1', retry, ready_at)
          redis.call('HSET', deaths_key(id), each, death)
        end
        release_chunk(id, action)
      else
        put_back(id, queue, unit, int(attempt + 1), count, retry, ready_at)
        redis.call('HSET', deaths_key(id), unit, death)
      end
    end
  end
  return units
end

-- resend: every runner that is on its way is to be published once more: who was told to publish it may have died before it
-- did. A message that comes twice does no harm.
local function resend(publish)
  for _, queue in ipairs(redis.call('SMEMBERS', queues_key())) do
    for _, runner in ipairs(redis.call('ZRANGE', inflight_key(queue), 0, -1)) do
      local id = string.match(runner, '^(.*)%.%d+$')
      if redis.call('HGET', runners_key(id), runner) == '|1|1' then
        publish[#publish + 1] = id
        publish[#publish + 1] = runner
        publish[#publish + 1] = queue
        publish[#publish + 1] = redis.call('HGET', session_key(id), 'timeout')
        publish[#publish + 1] = redis.call('HGET', messages_key(id), runner) or ''
      end
    end
  end
end

-- expire: a runner is taken for dead: its claims go back, its permits and slot are freed. Returns the units.
local function expire(id, runner, queue, worker, death)
  local record = redis.call('HGET', runners_key(id), runner)
  redis.call('ZREM', inflight_key(queue), runner)
  if not record then return {} end
  local life, held, coming = string.match(record, '^(.*)|(%d+)|(%d)$')
  local units = {}
  if coming == '1' then redis.call('HINCRBY', session_key(id), 'pub:' .. queue, -1) end
  if life ~= '' then units = return_claims(id, queue, life, death) end
  local fields = redis.call('HMGET', session_key(id), 'workflow', 'queues', 'header', 'key')
  leave(id, levels_of(fields[1], fields[4]), runner, queue, worker, tonumber(held))
  if fields[3] then park(id, runner) end
  touch_all(fields[2])
  return units
end
