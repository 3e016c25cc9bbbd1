-- forget_worker: its slots are no more. Returns the queues it served. Needs: time.
local function forget_worker(name)
  local queues = redis.call('SMEMBERS', worker_queues_key(name))
  for _, queue in ipairs(queues) do
    local count = tonumber(redis.call('HGET', slots_key(queue), name) or '0')
    redis.call('HDEL', slots_key(queue), name)
    redis.call('DECRBY', slots_total_key(queue), count)
  end
  redis.call('ZREM', workers_key(), name)
  redis.call('DEL', worker_queues_key(name))
  return queues
end
