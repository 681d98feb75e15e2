"""The steps that Redis takes as one: scripts in Lua, by Redis' own clock.

All keys carry the hash tag `{echo}`, so that a Redis Cluster keeps them together:

| key                    | type       | holds                                                      |
|------------------------|------------|------------------------------------------------------------|
| `{echo}:born`          | string     | since when the keys are trusted, in microseconds           |
| `{echo}:processes`     | sorted set | process id -> the end of its lease, in microseconds;       |
|                        |            | "" -> when a process last wrote or left (the registry)     |
| `{echo}:share:<id>`    | hash       | name -> count in that process; "" -> sequence number       |
| `{echo}:announcer`     | string     | the id of the process that sends the signals               |
| `{echo}:announced`     | hash       | name -> count that was told, 0 before vacated; "" -> stamp |

When the sum can be known: a live process writes at least once in each `youth` (heartbeat +
CATCH_UP) in which Redis serves it. So once Redis has served for a `youth` and has lost nothing
since, the shares of the live leases are all there is. `born` is the moment since which that is
witnessed by writes; reads return YOUNG until `born` is a `youth` old. A write sets `born` to its
own time in these four cases:

1. `born` or the "" of the registry is missing: the data were flushed or evicted, or never there. No
   process takes these two away, so lost data never look like a registry that was left in order.
2. Nobody holds a lease, and another process is in the registry, or `born` was not yet a `youth` old
   at the last write. Either the processes were killed, or they live, and Redis stood still or its
   clock jumped ahead: then they write again within a `youth`.
3. No process has written for longer than a `youth`, and the lease of another process ends within a
   `youth` or has ended. As in 2, but a process with a longer lease, or one that wrote later, has
   not lapsed. How long a lease is does not matter here: the processes of a deploy may have two
   lengths, and a late write of the one with the longer lease must not hide the silence. Reads
   return YOUNG in this case as well, since they may come before the first write.
4. The last write is in the future: the clock jumped back. Leases are cut to their usual length,
   because those of dead processes would last as much longer.

Who is over: a process that ends in order takes its entry from the registry (REMOVE). If the lease
of another has ended, and `born` is a `youth` old, then Redis served that process and it did not
write: it was killed, stands still or is cut off. Its entry is taken away by the next process that
writes or ends.

So if `born` is a `youth` old and the registry has no process, all have left in order or are over,
and the first process of the next start need not wait for a `youth`. Only one kind of process is
missing from these data: one that started while Redis was away, or whose entry was lost when Redis
loaded an old snapshot. It tries again every RETRY, and writes CATCH_UP later at the most. So the
first process waits for `settle` = RETRY + CATCH_UP + 0.1 s. What a restart or a failover lost is
not seen here but by each process when it connects (`Servers`).
"""

PROCESSES = "{echo}:processes"
BORN = "{echo}:born"
SHARE = "{echo}:share:"
ANNOUNCER = "{echo}:announcer"
ANNOUNCED = "{echo}:announced"

# What COUNT, COUNTS and RESERVE return in place of a number: the keys are so young that a process
# may not have written yet; the share of a live process is gone; the asking process holds no lease;
# the keys are gone.
YOUNG, MISSING, NOT_LIVE, LOST = -1, -2, -3, -4
# And LEAD in place of a stamp.
VACANT, OTHER_LEADS = 0, 1

# KEYS: processes, born. ARGV: own id, youth in ms.
_REGISTRY = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local processes, born_key = KEYS[1], KEYS[2]
local own_id, youth = ARGV[1], ARGV[2] * 1000
local born = tonumber(redis.call('GET', born_key) or '')
local last = tonumber(redis.call('ZSCORE', processes, '') or '')
local function text(number) return string.format('%.0f', number) end

-- The ids with leases that end then, without "": 3 are enough to find one that is not our own.
local function ids(from, to, ...)
  local found = redis.call('ZRANGEBYSCORE', processes, from, to, ...)
  for number, id in ipairs(found) do
    if id == '' then
      table.remove(found, number)
      break
    end
  end
  return found
end
local function has_others_until(moment)
  for _, id in ipairs(ids('-inf', text(moment), 'LIMIT', 0, 3)) do
    if id ~= own_id then return true end
  end
  return false
end
local function is_lost() return not born or not last end
local function has_jumped_back() return last > now + youth end
local function may_have_stood_still()
  return now - last > youth and (last - born < youth or has_others_until(now + youth))
end
"""

# Sets `born` to now where the keys cannot be trusted, takes away who is over, and notes the time.
_WITNESS = """
local function begin_anew()
  born = now
  redis.call('SET', born_key, text(born))
end
local function witness(is_doubtful)
  if is_doubtful or is_lost() or has_jumped_back() or may_have_stood_still() then begin_anew() end
  if now - born >= youth then redis.call('ZREMRANGEBYSCORE', processes, '-inf', text(now)) end
  redis.call('ZADD', processes, text(now), '')
end
"""

# Write counts of a process, and renew its lease. The numbers are absolute: a step may be
# repeated, merged or lost. Where the share is gone or older than the process knows it to be
# (expiry, FLUSHALL, an old snapshot, a failover), nothing is written and 0 returned: all of it
# is to be written anew. Nor is it where the share is newer than the step: that one comes late,
# from a connection that was given up. Where it is as new, it is this step that has been made: the
# client of a cluster repeats one whose answer was lost.
# KEYS: processes, born, share. ARGV: id, youth, settle and lease in ms, sequence number that Redis
# has acknowledged, that of this step, "1" for a whole share, then names and counts.
WRITE = (
    _REGISTRY
    + _WITNESS
    + """
local share = KEYS[3]
local settle, lease = ARGV[3] * 1000, ARGV[4] * 1000
local sequence = tonumber(redis.call('HGET', share, '') or -1)
if sequence == tonumber(ARGV[6]) then return 1 end
if sequence > tonumber(ARGV[6]) then return 0 end
if ARGV[7] == '1' then
  redis.call('DEL', share)
elseif sequence < 0 or sequence < tonumber(ARGV[5])
    or not redis.call('ZSCORE', processes, own_id) then
  return 0
end
local is_doubtful = false
if not is_lost() then
  if has_jumped_back() then
    for _, id in ipairs(ids('(' .. text(now + lease), '+inf')) do
      redis.call('ZADD', processes, text(now + lease), id)
    end
  end
  if #ids('(' .. text(now), '+inf', 'LIMIT', 0, 2) == 0 then
    is_doubtful = last - born < youth or has_others_until(now)
    if now - born > youth - settle then
      born = now - youth + settle
      redis.call('SET', born_key, text(born))
    end
  end
end
witness(is_doubtful)
for i = 8, #ARGV, 2 do
  if ARGV[i + 1] == '0' then
    redis.call('HDEL', share, ARGV[i])
  else
    redis.call('HSET', share, ARGV[i], ARGV[i + 1])
  end
end
redis.call('HSET', share, '', ARGV[6])
redis.call('PEXPIRE', share, ARGV[4])
redis.call('ZADD', processes, text(now + lease), own_id)
return 1
"""
)

# And the ids of those who hold a lease. ARGV: and prefix of shares.
_LIVE = (
    _REGISTRY
    + """
if is_lost() then return -4 end
if now - born < youth or has_jumped_back() or may_have_stood_still() then return -1 end
local live = ids('(' .. text(now), '+inf')
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
  if id == own_id then own = share end
  total = total + (share[2] or 0)
end
if not own then return -3 end
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
  own = own or id == own_id
  size = size + length
end
if not own then return -3 end
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

# Orderly exit: the share is gone at once. KEYS: processes, born, share, announcer. ARGV: id, youth
# in ms.
REMOVE = (
    _REGISTRY
    + _WITNESS
    + """
witness(false)
redis.call('ZREM', processes, own_id)
redis.call('DEL', KEYS[3])
if redis.call('GET', KEYS[4]) == own_id then redis.call('DEL', KEYS[4]) end
return 1
"""
)

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
