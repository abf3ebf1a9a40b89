-- Removes a replica that shuts down, so that no change waits for it.
-- KEYS: members
-- ARGV: replica
return redis.call('ZREM', KEYS[1], ARGV[1])
