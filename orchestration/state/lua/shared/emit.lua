-- emit: one stream entry for all that a call changed: the callers' rows (opaque JSON arrays). Needs: time.
local function emit(id, day, worker, blobs)
  if #blobs == 0 then return end
  local entry = { 'XADD', status_key(), '*', 's', id, 'd', day, 't', int(now), 'w', worker }
  for index = 1, #blobs do
    entry[#entry + 1] = 'b'
    entry[#entry + 1] = blobs[index]
  end
  redis.call(unpack(entry))
end
