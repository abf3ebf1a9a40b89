-- Numbers a message, ends the shared copies that it concerns, and publishes it.
-- KEYS: epoch, sequence, members; then the key without which nothing happens (if there is one); then keys to delete, and
--   keys to set to the epoch and the number
-- ARGV: epoch, channel, message; the numbers of keys of these three kinds; the milliseconds for which the number is kept
-- Returns the number, and the replicas whose lease is live; only 0 without the key; nothing if the epoch is over,
-- or Redis has evicted the sequence.
if redis.call('GET', KEYS[1]) ~= ARGV[1] or redis.call('EXISTS', KEYS[2]) == 0 then
  return {}
end
local key = 3
for _ = 1, tonumber(ARGV[4]) do
  key = key + 1
  if redis.call('EXISTS', KEYS[key]) == 0 then
    return { '0' }
  end
end
local number = string.format('%.0f', redis.call('INCR', KEYS[2]))
for _ = 1, tonumber(ARGV[5]) do
  key = key + 1
  redis.call('UNLINK', KEYS[key])
end
for _ = 1, tonumber(ARGV[6]) do
  key = key + 1
  redis.call('SET', KEYS[key], ARGV[1] .. ':' .. number, 'PX', ARGV[7])
end
redis.call('PUBLISH', ARGV[2], number .. ':' .. ARGV[3])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local reply = redis.call('ZRANGEBYSCORE', KEYS[3], string.format('(%.0f', now), '+inf')
table.insert(reply, 1, number)
return reply
