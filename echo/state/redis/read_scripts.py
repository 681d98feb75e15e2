"""The scripts that read counts."""

from echo.state.redis.lua import CLOCK, REQUIRE_KNOWN
from echo.state.redis.scripts import READ_KEYS, Script

# The count of one object, and the number of the last change.
COUNT = Script(
    READ_KEYS,
    "id name",
    CLOCK
    + REQUIRE_KNOWN
    + """
return {live(name, tonumber(redis.call('HGET', totals, name) or 0)), change}
""",
)

# The epoch, the number of the last change, a cursor, and alternating lines of names and counts: all
# if there are at most `limit` names, else about `size` at the cursor.
COUNTS = Script(
    READ_KEYS,
    "id cursor limit# size#",
    CLOCK
    + REQUIRE_KNOWN
    + """
local part
dead = ids('-inf', text(now))
if cursor == '0' and (redis.call('HLEN', totals) - 1) * (#dead + 1) <= limit then
  part = redis.call('HGETALL', totals)
else
  size = math.max(10, math.floor(size / (#dead + 1)))
  part = redis.call('HSCAN', totals, cursor, 'COUNT', size)
  cursor, part = part[1], part[2]
end
if #dead > 0 then
  for i = 1, #part, 2 do
    if part[i] ~= '/epoch' then part[i + 1] = live(part[i], part[i + 1]) end
  end
end
return {epoch, change, cursor, table.concat(part, '\\n')}
""",
)
