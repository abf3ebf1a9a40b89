-- Comes before each script for idempotency keys. The record of a caller and a key is a hash:
--   request: the digest of the request
--   the index of a root field: the state of its change, a letter and a value
--     f: in flight, with its claim, which is a replica and a token
--     l: left behind by a replica whose lease has ended, with its claim
--     o: the sealed outcome
--     r: the sealed outcome of a change that the upstream has rejected: it may be forgotten, since a repeat is rejected again
-- KEYS: members; the caller's records by the time of their end; those of them that may be forgotten; then the names that the
--   record may have, one under each key of the fleet
-- ARGV: how many digests follow; the digest of the request under each key of the fleet; then the arguments of the script
local digests = tonumber(ARGV[1])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function argument(number)
  return ARGV[1 + digests + number]
end

local function decimal(number)
  return string.format('%.0f', number)
end

-- The name of the record, and whether it exists; no name if the record belongs to another request.
local function find()
  for key = 4, #KEYS do
    local request = redis.call('HGET', KEYS[key], 'request')
    if request then
      for digest = 2, 1 + digests do
        if ARGV[digest] == request then
          return KEYS[key], true
        end
      end
      return nil, true
    end
  end
  return KEYS[4], false
end

-- Prolongs the life of a key to so many milliseconds.
local function keep(key, milliseconds)
  if redis.call('PTTL', key) < milliseconds then
    redis.call('PEXPIRE', key, decimal(milliseconds))
  end
end
