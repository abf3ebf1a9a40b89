-- Claims a change for a replica, unless another one has claimed it.
-- ARGV: index; replica; token; the milliseconds for which the claim is kept; 1 to give up a replica whose lease has ended
-- Returns "claimed"; "known", the sealed outcome and its remaining milliseconds; "in flight" on another replica; "gone" if
--   the lease of that replica has ended; "left" if it was given up; "other request".
local record, exists = find()
if not record then
  return { 'other request' }
end
local index, replica = argument(1), argument(2)
local state = exists and redis.call('HGET', record, index)
if state then
  local kind, value = string.sub(state, 1, 1), string.sub(state, 2)
  if kind == 'o' or kind == 'r' then
    return { 'known', value, decimal(redis.call('PTTL', record)) }
  end
  -- An earlier claim of the same replica is over: otherwise it would not claim the change again.
  local holder = string.sub(value, 1, #replica)
  if holder ~= replica then
    local lease_end = redis.call('ZSCORE', KEYS[1], holder)
    if lease_end and tonumber(lease_end) > now then
      return { 'in flight' }
    end
    if kind == 'f' then
      if argument(5) ~= '1' then
        return { 'gone' }
      end
      redis.call('HSET', record, index, 'l' .. value)
    end
    return { 'left' }
  end
end
if not exists then
  redis.call('HSET', record, 'request', ARGV[2])
end
redis.call('HSET', record, index, 'f' .. replica .. argument(3))
local kept = tonumber(argument(4))
keep(record, kept)
redis.call('ZREM', KEYS[3], record)
redis.call('ZADD', KEYS[2], decimal(now + redis.call('PTTL', record)), record)
keep(KEYS[2], kept)
return { 'claimed' }
