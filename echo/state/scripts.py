"""The steps that Redis takes as one: scripts in Lua, by Redis' own clock.

All keys carry the hash tag `{echo}`, so that a Redis Cluster keeps them together:

| key                    | type       | holds                                                      |
|------------------------|------------|------------------------------------------------------------|
| `{echo}:born`          | string     | when the keys began, in microseconds: a flush sets it anew |
| `{echo}:processes`     | sorted set | process id -> the end of its lease, in microseconds        |
| `{echo}:share:<id>`    | hash       | name -> count in that process; "" -> sequence number       |
| `{echo}:announcer`     | string     | the id of the process that sends the signals               |
| `{echo}:announced`     | hash       | name -> count that was told, 0 before vacated; "" -> stamp |
| `{echo}:claimed:<key>` | string     | that somebody does it, or has done it a while ago          |
"""

PROCESSES = "{echo}:processes"
BORN = "{echo}:born"
SHARE = "{echo}:share:"
ANNOUNCER = "{echo}:announcer"
ANNOUNCED = "{echo}:announced"
CLAIMED = "{echo}:claimed:"

# What COUNT, COUNTS and RESERVE return in place of a number: the keys are so young that a process
# may not have written yet; the share of a live process is gone, or the asking one is not live.
YOUNG, MISSING = -1, -2
# And LEAD in place of a stamp.
VACANT, OTHER_LEADS = 0, 1

_NOW = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local function text(number) return string.format('%.0f', number) end
"""

# Write counts of a process, and renew its lease. The numbers are absolute: a step may be
# repeated, merged or lost. Where the share is gone or older than the process knows it to be
# (expiry, FLUSHALL, an old snapshot, a failover), nothing is written and 0 returned: all of it
# is to be written anew. Nor is it where the share is newer than the step: that one comes late,
# from a connection that was given up. Where it is as new, it is this step that has been made: the
# client of a cluster repeats one whose answer was lost. Where nobody is live, the keys begin anew:
# the first process, or all have lapsed at once, as when Redis stood still or its clock jumped.
# KEYS: processes, born, share. ARGV: id, lease in ms, sequence number that Redis has
# acknowledged, that of this step, "1" for a whole share, then names and counts.
WRITE = (
    _NOW
    + """
local processes, born, share = KEYS[1], KEYS[2], KEYS[3]
local sequence = tonumber(redis.call('HGET', share, '') or -1)
if sequence == tonumber(ARGV[4]) then return 1 end
if sequence > tonumber(ARGV[4]) then return 0 end
if ARGV[5] == '1' then
  redis.call('DEL', share)
elseif sequence < 0 or sequence < tonumber(ARGV[3])
    or not redis.call('ZSCORE', processes, ARGV[1]) then
  return 0
end
local lease_ends = now + ARGV[2] * 1000
if #redis.call('ZRANGEBYSCORE', processes, '(' .. text(now), '+inf', 'LIMIT', 0, 1) == 0 then
  redis.call('DEL', born)
end
redis.call('SET', born, text(now), 'NX')
for i = 6, #ARGV, 2 do
  if ARGV[i + 1] == '0' then
    redis.call('HDEL', share, ARGV[i])
  else
    redis.call('HSET', share, ARGV[i], ARGV[i + 1])
  end
end
redis.call('HSET', share, '', ARGV[4])
redis.call('PEXPIRE', share, ARGV[2])
redis.call('ZADD', processes, text(lease_ends), ARGV[1])
redis.call('ZREMRANGEBYSCORE', processes, '-inf', text(now - 100000 * ARGV[2]))
return 1
"""
)

# KEYS: processes, born. ARGV: own id, youth in ms, prefix of shares.
_LIVE = (
    _NOW
    + """
local born = redis.call('GET', KEYS[2])
if not born or now - born < ARGV[2] * 1000 then return -1 end
local live = redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. text(now), '+inf')
"""
)

# ARGV: and a name. `total` is the sum of all processes' counts of it, `own` has that of the asking.
_SUM = (
    _LIVE
    + """
local total, own = 0, nil
for _, id in ipairs(live) do
  local share = redis.call('HMGET', ARGV[3] .. id, '', ARGV[4])
  if not share[1] then return -2 end
  if id == ARGV[1] then own = share end
  total = total + (share[2] or 0)
end
if not own then return -2 end
"""
)

# The sum of all processes' counts of one object.
COUNT = _SUM + "return total"

# What all processes have: each share as names and counts, a line each. Where that is much,
# it would keep Redis from all else for too long: then their keys, to be read in PARTs.
# ARGV: and how many names may be read at once.
COUNTS = (
    _LIVE
    + """
local shares, size, own = {}, 0, false
for _, id in ipairs(live) do
  shares[#shares + 1] = ARGV[3] .. id
  local length = redis.call('HLEN', ARGV[3] .. id)
  if length == 0 then return -2 end
  own = own or id == ARGV[1]
  size = size + length
end
if not own then return -2 end
if size > tonumber(ARGV[4]) then return {1, shares} end
for number, share in ipairs(shares) do
  shares[number] = table.concat(redis.call('HGETALL', share), '\\n')
end
return {0, shares}
"""
)

# Some names and counts of a share, a line each. KEYS: share. ARGV: cursor, about how many.
PART = """
if redis.call('EXISTS', KEYS[1]) == 0 then return -2 end
local part = redis.call('HSCAN', KEYS[1], ARGV[1], 'COUNT', ARGV[2])
return {part[1], table.concat(part[2], '\\n')}
"""

# How many of the wanted connections an object may take: decided and written in one step.
# A step that comes late, after the share has been written again, decides nothing.
# KEYS: and own share. ARGV: and own count, how many are wanted, the limit, the sequence number that
# Redis has acknowledged.
RESERVE = (
    _SUM
    + """
if own[1] ~= ARGV[8] then return -2 end
local others = total - (own[2] or 0)
local granted = math.max(0, math.min(ARGV[6], ARGV[7] - ARGV[5] - others))
if granted > 0 then redis.call('HSET', KEYS[3], ARGV[4], ARGV[5] + granted) end
return granted
"""
)

# Orderly exit: the share is gone at once. KEYS: processes, share, announcer. ARGV: id.
REMOVE = """
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('DEL', KEYS[2])
if redis.call('GET', KEYS[3]) == ARGV[1] then redis.call('DEL', KEYS[3]) end
return 1
"""

# Stay, or where "1" become, the process that announces; return the stamp of the last note.
# KEYS: announcer, announced. ARGV: id, lease in ms, "1" to take a vacant post.
LEAD = """
local leader = redis.call('GET', KEYS[1])
if not leader and ARGV[3] == '0' then return 0 end
if leader and leader ~= ARGV[1] then return 1 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return redis.call('HGET', KEYS[2], '') or ''
"""

# Note what is told, unless another process announces. KEYS: announcer, announced.
# ARGV: id, stamp, "1" if it is all that there is, then names and counts ("" for vacated).
NOTE = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if ARGV[3] == '1' then redis.call('DEL', KEYS[2]) end
for i = 4, #ARGV, 2 do
  if ARGV[i + 1] == '' then
    redis.call('HDEL', KEYS[2], ARGV[i])
  else
    redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1])
  end
end
redis.call('HSET', KEYS[2], '', ARGV[2])
return 1
"""

# All that has been told. KEYS: announcer, announced.
NOTED = "return redis.call('HGETALL', KEYS[2])"

# The first who claims a key has 1, however often the step is repeated.
# KEYS: claimed. ARGV: for how many ms, a word of this claim's own.
CLAIM = """
redis.call('SET', KEYS[1], ARGV[2], 'NX', 'PX', ARGV[1])
return redis.call('GET', KEYS[1]) == ARGV[2] and 1 or 0
"""
RELEASE = "return redis.call('DEL', KEYS[1])"
