-- Renews the lease of a replica.
-- KEYS: epoch, sequence, members
-- ARGV: epoch, replica, lease in milliseconds
-- Returns the number of the last message; -1 if the epoch is over or the lease was lost, so that the replica has to join again.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return -1
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local score = redis.call('ZSCORE', KEYS[3], ARGV[2])
if not score or tonumber(score) <= now then
  return -1
end
redis.call('ZADD', KEYS[3], string.format('%.0f', now + ARGV[3]), ARGV[2])
return tonumber(redis.call('GET', KEYS[2]) or -1)
