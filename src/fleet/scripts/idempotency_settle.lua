-- Records the outcome of a change, or withdraws its claim, unless another replica has claimed it or recorded its outcome.
-- Repeated, it changes nothing.
-- ARGV: index; claim; the letter and the sealed outcome, or nothing; the milliseconds for which it is kept; how many records of
--   a caller are kept that may be forgotten
local record, exists = find()
if not record then
  return { 'other request' }
end
local index, outcome = argument(1), argument(3)
local state = exists and redis.call('HGET', record, index)
if state and string.sub(state, 2) ~= argument(2) then
  return { 'taken' }
end
if outcome == '' then
  if state then
    redis.call('HDEL', record, index)
    if redis.call('HLEN', record) == 1 then
      redis.call('UNLINK', record)
      redis.call('ZREM', KEYS[2], record)
    end
  end
  return { 'withdrawn' }
end
if not exists then
  redis.call('HSET', record, 'request', ARGV[2])
end
redis.call('HSET', record, index, outcome)
local kept, is_in_flight, is_forgettable = tonumber(argument(4)), false, true
local fields = redis.call('HGETALL', record)
for field = 1, #fields, 2 do
  if fields[field] ~= 'request' then
    local kind = string.sub(fields[field + 1], 1, 1)
    is_in_flight = is_in_flight or kind == 'f'
    is_forgettable = is_forgettable and kind == 'r'
  end
end
if is_in_flight then
  keep(record, kept)
else
  redis.call('PEXPIRE', record, decimal(kept))
end
if is_forgettable then
  list(record, KEYS[3], KEYS[2])
else
  list(record, KEYS[2], KEYS[3])
end
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', decimal(now))
local excess = redis.call('ZCARD', KEYS[3]) - tonumber(argument(5))
if excess > 0 then
  local oldest = redis.call('ZPOPMIN', KEYS[3], excess)
  for position = 1, #oldest, 2 do
    redis.call('UNLINK', oldest[position])
  end
end
return { 'recorded' }
