-- Finds a registered text, and keeps it for its whole lifetime again.
-- KEYS: the names under which the caller may find it
-- ARGV: the lifetime in milliseconds
-- Returns the name and the encrypted text; nothing if there is none.
for _, name in ipairs(KEYS) do
  local text, owner = unpack(redis.call('HMGET', name, 'text', 'owner'))
  if text and owner then
    local time = redis.call('TIME')
    -- Fails if the memory is full.
    redis.pcall('ZADD', owner, 'XX', string.format('%.0f', time[1] * 1000000 + time[2]), name)
    redis.call('PEXPIRE', owner, ARGV[1])
    redis.call('PEXPIRE', name, ARGV[1])
    return { name, text }
  end
end
return {}
