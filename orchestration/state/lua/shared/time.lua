-- now: Redis TIME in µs as a number (exact below 2^53). int(n): its digits, never an exponent.
local clock_reply = redis.call('TIME')
local now = clock_reply[1] * 1000000 + clock_reply[2]
local function int(n) return string.format('%.0f', n) end
