-- Registers a replica. Starts a new epoch if this Redis is not the one that the fleet has used last, or if the replica has
-- lost messages that it should have published.
-- KEYS: epoch, sequence, members, run
-- ARGV: the run id of this Redis, an epoch that nobody has used, the replica, its lease in milliseconds,
--   1 if it has lost messages
-- Returns the epoch and the number of the last message.
if ARGV[5] == '1' or redis.call('GET', KEYS[4]) ~= ARGV[1] or redis.call('EXISTS', KEYS[1], KEYS[2]) < 2 then
  redis.call('SET', KEYS[4], ARGV[1])
  redis.call('SET', KEYS[1], ARGV[2])
  redis.call('SET', KEYS[2], 0)
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', string.format('%.0f', now))
redis.call('ZADD', KEYS[3], string.format('%.0f', now + ARGV[4]), ARGV[3])
return { redis.call('GET', KEYS[1]), tonumber(redis.call('GET', KEYS[2])) }
