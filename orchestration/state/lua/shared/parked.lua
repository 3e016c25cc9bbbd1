-- The runners of a chord session are the header of a Celery chord: a fixed number of tasks, each of which must count as ended
-- once, when the session has ended. One that leaves before that is parked; it can be published again, by the message that it
-- made of itself when it came. Needs: time.

-- has_parked: whether a runner can be published again.
local function has_parked(id) return redis.call('EXISTS', parked_key(id)) == 1 end

-- park: a runner that has come is neither on its way nor at work.
local function park(id, runner) redis.call('ZADD', parked_key(id), int(now), runner) end

-- unpark: the runner that was parked last is on its way again. Returns its id and its message.
local function unpark(id)
  local runner = redis.call('ZPOPMAX', parked_key(id))[1]
  return runner, redis.call('HGET', messages_key(id), runner)
end
