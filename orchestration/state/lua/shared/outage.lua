-- was_away: whether Redis was away (frozen, restarted, cut off). Upkeep processes look for leases that are over each second; when
-- none of them has for a third of a lease, nobody could renew either.
-- is_graced: whether no lease may be taken for over yet: since then, all have the time of one lease to renew. Needs: time.
local LEAST_GAP = 3000000 -- µs; looks are a second apart, on a busy machine two
local function was_away(lease)
  local looked = redis.call('HGET', outage_key(), 'looked')
  return looked and now - tonumber(looked) > math.max(lease / 3, LEAST_GAP)
end

local function is_graced(lease)
  return now < tonumber(redis.call('HGET', outage_key(), 'until') or '0') or was_away(lease)
end
