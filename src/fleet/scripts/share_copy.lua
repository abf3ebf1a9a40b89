-- Notes that the upstream has accepted a caller, and stores the copy of an appointment that it has read for the caller.
--
-- The markers of a scope and of an appointment are the epoch and the number of a message: all copies from before that message
-- are over. A message that ends copies deletes the marker and leaves its own number, below which no marker is set again.
--
-- KEYS: epoch; the marker of the scope and the number of its last revocation, under each key of the fleet; to store a copy
--   also: the marker of the appointment, the number of its last change, the copy, the bytes of the caller, the bytes of all
-- ARGV: epoch; the number of the last message before the read; the milliseconds for which the marker of a scope lasts; the
--   number of keys of the fleet; to store a copy also: the copy, the time of its end, the bytes that are guaranteed to a
--   caller, the bytes that all may use, the milliseconds for which they count
-- Returns 1 if the scope has its markers; 0 if a revocation since the read has ended them, or the epoch is over.
local epoch, as_of = ARGV[1], tonumber(ARGV[2])
if redis.call('GET', KEYS[1]) ~= epoch then
  return 0
end

-- The bytes of a copy beside its value: its key, and the marker of its appointment.
local OVERHEAD = 400

-- A value of another type is not from a replica.
local function get(key)
  local value = redis.pcall('GET', key)
  return type(value) == 'string' and value or ''
end

-- The number in a value that consists of the present epoch and a number.
local function number_of(value)
  if string.sub(value, 1, #epoch + 1) == epoch .. ':' then
    return tonumber(string.sub(value, #epoch + 2))
  end
end

-- Whether a read of this number is good, by the number of the last message that has ended others.
local function is_good(last)
  return (number_of(get(last)) or 0) <= as_of
end

-- Sets a marker that lasts until `time`, unless there is one. Returns whether copies of this number are good for it.
local function mark(marker, time)
  local number = number_of(get(marker))
  if not number then
    redis.call('SET', marker, epoch .. ':' .. ARGV[2], 'PXAT', time)
    return true
  end
  redis.call('PEXPIREAT', marker, time, 'GT')
  return number <= as_of
end

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local scope_ends = string.format('%.0f', now + ARGV[3])
local count = tonumber(ARGV[4])
for key = 2, 2 * count, 2 do
  if not is_good(KEYS[key + 1]) then
    return 0
  end
end
local is_marked = true
for key = 2, 2 * count, 2 do
  is_marked = mark(KEYS[key], scope_ends) and is_marked
end
if #ARGV == 4 or not is_marked then
  return 1
end

local appointment, changed, copy, mine, all = unpack(KEYS, 2 * count + 2)
local value, ends, share, room, window = unpack(ARGV, 5)
if not is_good(changed) or tonumber(ends) <= now then
  return 1
end
-- Bytes are counted in windows, each as long as a copy lives at most: a counter is the start of its window and the bytes since.
-- A copy begins with the window in which it was counted, so a new one in its place is counted once in each window.
local started, total = string.match(get(all), '^(%d+):(%d+)$')
if not started then
  started, total = string.format('%.0f', now), 0
end
local of_caller, own = string.match(get(mine), '^(%d+):(%d+)$')
if of_caller ~= started then
  own = 0
end
local old_window, old_value = string.match(get(copy), '^(%d+):(.*)$')
local size = #value + OVERHEAD
if old_window == started then
  size = #value - #old_value
end
total, own = math.max(total + size, 0), math.max(own + size, 0)
-- Half of the room is for everybody, the rest for callers below their share.
local is_admitted = size <= 0 or total <= room / 2 or (total <= tonumber(room) and own <= tonumber(share))
if not is_admitted or not mark(appointment, ends) then
  return 1
end
local left = redis.call('PTTL', all)
if left <= 0 or left > tonumber(window) then
  left = window
end
redis.call('SET', all, started .. ':' .. string.format('%.0f', total), 'PX', left)
redis.call('SET', mine, started .. ':' .. string.format('%.0f', own), 'PX', left)
redis.call('SET', copy, started .. ':' .. value, 'PXAT', ends)
return 1
