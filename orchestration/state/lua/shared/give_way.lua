-- What a new session that finds a limit of whole sessions reached does to older ones, as its definition says (when_full). Only sessions
-- of its own workflow give way, whatever the level. Needs: time, admit, stop, cancel.
local MOST_LOOKED_AT = 1000 -- sessions that run or are queued at a level, the oldest

-- queued_own: sessions of the workflow that are queued at the level, in their order.
local function queued_own(level, workflow)
  local own = {}
  for _, id in ipairs(redis.call('ZRANGE', queued_at(level), 0, MOST_LOOKED_AT - 1)) do
    if redis.call('HGET', session_key(id), 'workflow') == workflow then own[#own + 1] = id end
  end
  return own
end

-- running_own: sessions of the workflow that run at the level, the oldest first; and how many of all workflows will not end by
-- themselves at once, since they have been stopped, or all of them has settled.
local function running_own(level, workflow)
  local own, staying = {}, redis.call('ZCARD', running_at(level))
  for _, id in ipairs(redis.call('ZRANGE', running_at(level), 0, MOST_LOOKED_AT - 1)) do
    local f = redis.call('HMGET', session_key(id), 'status', 'workflow')
    if f[1] ~= 'running' and f[1] ~= 'paused' then staying = staying - 1
    elseif f[2] == workflow then own[#own + 1] = id end
  end
  return own, staying
end

-- give_way: room for the session `by` at its levels, of which `full` is the narrowest that is full.
--   cancel_running: at each level that is full the oldest are cancelled, those that run first, until the new one is among as many as
--                   may run there when these have ended
--   keep_newest:    those that are queued where the new one will be are cancelled: only the newest waits
local function give_way(by, workflow, levels, full, when_full, publish)
  local ousted = {}
  local function oust(id, why, level)
    stop(id, why .. ' ' .. by .. ' ' .. level)
    end_cancelled(id, publish)
    ousted[#ousted + 1] = id
  end
  if when_full == 'keep_newest' then
    for _, id in ipairs(queued_own(full, workflow)) do oust(id, 'newer', full) end
  else
    for _, level in ipairs(levels) do
      local most = tonumber(redis.call('HGET', limits_key(), level) or '0')
      if is_full(level, most) then
        local waiting = queued_own(level, workflow)
        local running, staying = running_own(level, workflow)
        local excess = staying + #waiting + 1 - most
        for _, older in ipairs({ running, waiting }) do
          for _, id in ipairs(older) do
            if excess <= 0 then break end
            oust(id, 'place', level)
            excess = excess - 1
          end
        end
      end
    end
  end
  return ousted
end
