"""The scripts that read the members of objects."""

from echo.state.redis.lua import CLOCK, REQUIRE_KNOWN
from echo.state.redis.scripts import READ_KEYS, Script

# The number of the last change, the count of the object, the epoch, a cursor, and alternating lines
# of keys and presences of its members: all if there are at most `limit`, else about `size` at the
# cursor.
MEMBERS = Script(
    READ_KEYS,
    "id name cursor limit# size#",
    CLOCK
    + REQUIRE_KNOWN
    + """
local hash, part = members_prefix .. name, {}
local count = live(name, tonumber(redis.call('HGET', totals, name) or 0))
if redis.call('HGET', hash, '') ~= epoch then
  cursor = '0'
elseif cursor == '0' and redis.call('HLEN', hash) * (#dead + 1) <= limit then
  part = redis.call('HGETALL', hash)
else
  size = math.max(10, math.floor(size / (#dead + 1)))
  part = redis.call('HSCAN', hash, cursor, 'COUNT', size)
  cursor, part = part[1], part[2]
end
for i = 1, #part, 2 do
  if part[i] == '' then
    part[i + 1] = '0'
  elseif #dead > 0 then
    local total, rest = string.match(part[i + 1], '^(%d+)(.*)$')
    total = live(name .. '/' .. part[i], tonumber(total))
    part[i + 1] = total > 0 and text(total) .. rest or '0'
  end
end
return {change, count, epoch, cursor, table.concat(part, '\\n')}
""",
)

# The members of the given objects from `cursor` of the first, at least one scan and until about
# `size` are found: the epoch, the number of objects that are finished, the cursor in the next one,
# and alternating lines of "name/key" and presence.
MEMBERS_OF_OBJECTS = Script(
    READ_KEYS,
    "id cursor size#",
    CLOCK
    + REQUIRE_KNOWN
    + """
dead = ids('-inf', text(now))
size = math.max(10, math.floor(size / (#dead + 1)))
local lines, i = {}, first
repeat
  local name, part = ARGV[i], {'0', {}}
  local hash = members_prefix .. name
  if redis.call('HGET', hash, '') == epoch then
    part = redis.call('HSCAN', hash, cursor, 'COUNT', size)
  end
  for j = 1, #part[2], 2 do
    local entry, presence = name .. '/' .. part[2][j], part[2][j + 1]
    if #dead > 0 and part[2][j] ~= '' then
      local total, rest = string.match(presence, '^(%d+)(.*)$')
      total = live(entry, tonumber(total))
      presence = total > 0 and text(total) .. rest or '0'
    end
    if part[2][j] ~= '' then
      lines[#lines + 1] = entry
      lines[#lines + 1] = presence
    end
  end
  cursor, size = part[1], size - math.max(1, #part[2] / 2)
  if cursor == '0' then i = i + 1 end
until size <= 0 or i > #ARGV
return {epoch, i - first, cursor, table.concat(lines, '\\n')}
""",
)

# The number of members of the object in a table; -1 if there are dead processes, whose members must
# be left out.
MEMBER_COUNT = Script(
    READ_KEYS,
    "id name",
    CLOCK
    + REQUIRE_KNOWN
    + """
local hash = members_prefix .. name
if redis.call('HGET', hash, '') ~= epoch then return {0} end
if #ids('-inf', text(now), 'LIMIT', 0, 1) > 0 then return {-1} end
return {redis.call('HLEN', hash) - 1}
""",
)

# The presence of one member in a table; "0" if it has no connections.
MEMBER = Script(
    READ_KEYS,
    "id name key",
    CLOCK
    + REQUIRE_KNOWN
    + """
local stored = redis.call('HMGET', members_prefix .. name, '', key)
if stored[1] ~= epoch or not stored[2] then return {'0'} end
local total, rest = string.match(stored[2], '^(%d+)(.*)$')
total = live(name .. '/' .. key, tonumber(total))
return {total > 0 and text(total) .. rest or '0'}
""",
)
