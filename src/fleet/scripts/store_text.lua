-- Stores a registered text. It belongs to the caller that stored it first, and makes room only among that caller's texts:
-- those that were not used for the longest time go.
-- KEYS: the name of the text, the name of the set of the caller's texts, the bytes of all texts
-- ARGV: the encrypted text, the lifetime in milliseconds, the maximum number of texts of a caller, the bytes that are stored
--   within a lifetime at most
if redis.call('EXISTS', KEYS[1]) == 0 then
  local bytes = tonumber(redis.call('GET', KEYS[3]) or 0) + #ARGV[1]
  if bytes > tonumber(ARGV[4]) then
    return
  end
  if bytes == #ARGV[1] then
    redis.call('SET', KEYS[3], bytes, 'PX', ARGV[2])
  else
    redis.call('SET', KEYS[3], bytes, 'KEEPTTL')
  end
end
local owner = redis.call('HGET', KEYS[1], 'owner') or KEYS[2]
redis.call('HSET', KEYS[1], 'text', ARGV[1], 'owner', owner)
redis.call('PEXPIRE', KEYS[1], ARGV[2])
local time = redis.call('TIME')
redis.call('ZADD', owner, string.format('%.0f', time[1] * 1000000 + time[2]), KEYS[1])
redis.call('PEXPIRE', owner, ARGV[2])
local excess = redis.call('ZCARD', owner) - ARGV[3]
if excess > 0 then
  local freed = 0
  for _, name in ipairs(redis.call('ZRANGE', owner, 0, excess - 1)) do
    redis.call('ZREM', owner, name)
    -- Another caller may have stored it after it had expired.
    if redis.call('HGET', name, 'owner') == owner then
      freed = freed + #redis.call('HGET', name, 'text')
      redis.call('UNLINK', name)
    end
  end
  -- A caller that replaces its own texts takes no room from others.
  local bytes = redis.call('GET', KEYS[3])
  if bytes then
    redis.call('SET', KEYS[3], math.max(bytes - freed, 0), 'KEEPTTL')
  end
end
