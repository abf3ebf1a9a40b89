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
local is_made = string.sub(outcome, 1, 1) == 'o'
if state and string.sub(state, 2) ~= argument(2) then
  -- A replica that has made a change claims it no more, so an earlier claim of its own is one that it withdraws.
  local kind, is_own = string.sub(state, 1, 1), string.sub(state, 2, 37) == string.sub(argument(2), 1, 36)
  if not (is_made and is_own and (kind == 'f' or kind == 'l')) then
    return { 'taken' }
  end
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
local set = is_forgettable and KEYS[3] or KEYS[2]
redis.call('ZREM', is_forgettable and KEYS[2] or KEYS[3], record)
redis.call('ZADD', set, decimal(now + redis.call('PTTL', record)), record)
-- Each set lasts as long as its last record.
for key = 2, 3 do
  local last = redis.call('ZRANGE', KEYS[key], -1, -1, 'WITHSCORES')[2]
  if last then
    redis.call('PEXPIREAT', KEYS[key], decimal(tonumber(last)))
  end
end
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', decimal(now))
local excess = redis.call('ZCARD', KEYS[3]) - tonumber(argument(5))
if excess > 0 then
  local oldest = redis.call('ZPOPMIN', KEYS[3], excess)
  for position = 1, #oldest, 2 do
    -- Under another key of the fleet, a later change may have been made for it.
    local states, is_rejected = redis.call('HGETALL', oldest[position]), true
    for field = 1, #states, 2 do
      local kind = string.sub(states[field + 1], 1, 1)
      is_rejected = is_rejected and (states[field] == 'request' or kind == 'r')
    end
    if is_rejected then
      redis.call('UNLINK', oldest[position])
    end
  end
end
return { 'recorded' }
