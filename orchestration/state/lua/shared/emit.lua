-- emit: one stream entry for all that a call changed: the callers' rows (opaque JSON) and the claims it made.
-- A claim is recorded as b:<branch>|<attempt>|<sequence> or c:<action>:<start>|<attempt>|<sequence>|<count>, with the sequence
-- that `sequence_of` in orchestration/state/rows.py gives to a start. Needs: time.
local function emit(id, day, worker, blobs, started)
  if #blobs == 0 and #started == 0 then return end
  local entry = { 'XADD', status_key(), '*', 's', id, 'd', day, 't', int(now), 'w', worker }
  for index = 1, #blobs do
    entry[#entry + 1] = 'b'
    entry[#entry + 1] = blobs[index]
  end
  if #started > 0 then
    local list = {}
    for index = 1, #started do
      local unit, attempt, retry, count = string.match(started[index], '^(.*)|(%d+)|(%d+)|(%d+)$')
      list[index] = unit .. '|' .. int(attempt + retry) .. '|' .. int(attempt * 100000 + retry * 10 + 1)
      if string.sub(unit, 1, 2) == 'c:' then list[index] = list[index] .. '|' .. count end
    end
    entry[#entry + 1] = 'c'
    entry[#entry + 1] = table.concat(list, ';')
  end
  redis.call(unpack(entry))
end
