-- Checks whether a request may use its record, and changes nothing.
-- ARGV: how many records a caller may have
-- Returns "usable"; "other request"; or "full" and the milliseconds until one of the caller's records ends.
local record, exists = find()
if not record then
  return { 'other request' }
end
if exists then
  return { 'usable' }
end
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', decimal(now))
if redis.call('ZCARD', KEYS[2]) < tonumber(argument(1)) then
  return { 'usable' }
end
local first = redis.call('ZRANGE', KEYS[2], 0, 0, 'WITHSCORES')
return { 'full', decimal(first[2] - now) }
