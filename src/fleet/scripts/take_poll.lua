-- Takes or renews the lease of a poller.
-- KEYS: the lease under each key of the fleet; then as many counters of fencing tokens
-- ARGV: the poller, the lease in milliseconds
-- Returns the fencing token and the lease; 0 and the remaining milliseconds if another poller holds it.
local count = #KEYS / 2
local token
for key = 1, count do
  local lease = redis.call('GET', KEYS[key])
  if lease then
    local holder, number = string.match(lease, '^(%S+) (%d+)$')
    if holder ~= ARGV[1] then
      return { 0, redis.call('PTTL', KEYS[key]) }
    end
    token = tonumber(number)
  end
end
if not token then
  token = 0
  for key = count + 1, #KEYS do
    token = math.max(token, redis.call('INCR', KEYS[key]))
  end
  -- Replicas that do not know all keys count on from the same number.
  for key = count + 1, #KEYS do
    redis.call('SET', KEYS[key], string.format('%.0f', token))
  end
end
for key = 1, count do
  redis.call('SET', KEYS[key], ARGV[1] .. ' ' .. string.format('%.0f', token), 'PX', ARGV[2])
end
return { token, tonumber(ARGV[2]) }
