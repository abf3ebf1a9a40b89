-- Checks the rights of the user, and that the server takes writes.
-- KEYS: a key of which nobody makes use
-- ARGV: a channel of the fleet; then the commands of all scripts
-- Returns the commands that the user may not run.
local denied = {}
for index = 2, #ARGV do
  local target = ARGV[index] == 'PUBLISH' and ARGV[1] or KEYS[1]
  if not redis.acl_check_cmd(ARGV[index], target) then
    table.insert(denied, ARGV[index])
  end
end
if #denied == 0 then
  redis.call('SET', KEYS[1], '', 'PX', 1000)
end
return denied
