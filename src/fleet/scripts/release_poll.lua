-- Ends the lease of a poller, if it still holds it.
-- KEYS: the lease under each key of the fleet
-- ARGV: the poller
-- Returns whether it did.
local released = 0
for _, key in ipairs(KEYS) do
  local lease = redis.call('GET', key)
  if lease and string.match(lease, '^%S+') == ARGV[1] then
    redis.call('DEL', key)
    released = 1
  end
end
return released
