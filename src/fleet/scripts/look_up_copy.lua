#!lua flags=no-writes
-- Finds the copy of an appointment that a replica has read for a caller.
-- KEYS: epoch, marker of the appointment, marker of the scope, copy
-- ARGV: epoch
-- Returns the time in milliseconds, the values of the last three keys (empty without one), and the milliseconds for which the
--   copy lasts; nothing if the epoch is over.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return false
end
-- A value of another type is not from a replica.
local function get(key)
  local value = redis.pcall('GET', key)
  return type(value) == 'string' and value or ''
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
-- Without the window in which its bytes were counted.
local copy = string.match(get(KEYS[4]), '^%d+:(.*)$') or ''
return { now, get(KEYS[2]), get(KEYS[3]), copy, redis.call('PTTL', KEYS[4]) }
