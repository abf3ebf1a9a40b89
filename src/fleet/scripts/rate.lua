-- Takes tokens from the shared buckets of callers. A bucket is the time at which it will be full again (GCRA), in
-- microseconds. A bucket that is full for longer than the allowance counts as full for that long, and has no key.
-- KEYS: buckets
-- ARGV: the allowance for late reports in microseconds; then for each bucket the microseconds that its tokens take to refill
-- Returns for each bucket the microseconds until it is full; negative if it is.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local earliest = now - ARGV[1]
local until_full = {}
for index, key in ipairs(KEYS) do
  local full_at = math.max(tonumber(redis.call('GET', key) or 0), earliest) + ARGV[index + 1]
  redis.call('SET', key, string.format('%.0f', full_at), 'PX', math.ceil((full_at - earliest) / 1000))
  until_full[index] = full_at - now
end
return until_full
