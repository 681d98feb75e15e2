"""The steps of the state: Lua scripts, each of which Redis runs as a whole, by its own clock.

All keys have the hash tag `{echo}`, so that a Redis Cluster keeps them on one node. Processes of
two releases share the keys during a rolling deploy: so the epoch, the leader and the ledger keep
the keys `born`, `announcer` and `announced`.

| key                    | type       | contents                                                   |
|------------------------|------------|------------------------------------------------------------|
| `{echo}:born`          | string     | the epoch: since when the keys are trusted, in µs          |
| `{echo}:processes`     | sorted set | the registry: process id -> the end of its lease, in µs;   |
|                        |            | "" -> when a process last wrote or exited                  |
| `{echo}:share:<id>`    | hash       | name -> count in that process; "" -> sequence number       |
| `{echo}:announcer`     | string     | the id of the leader, the process that sends the signals   |
| `{echo}:announced`     | hash       | the ledger: name -> count that signals were last sent for, |
|                        |            | 0 until the object is vacated; "" -> stamp                 |

When the sum is known: a live process writes at least once in each warm-up (heartbeat +
CATCH_UP_GRACE) in which Redis serves it. So if Redis has served for one warm-up and has lost
nothing since, the shares of all live processes are there. The epoch is the moment since which the
writes prove that; until it is one warm-up ago, reads return WARMING_UP. A write sets the epoch to
its own time in these four cases:

1. The epoch or the "" of the registry is missing: the keys were flushed or evicted, or never
   existed. No process deletes these two, so lost keys never look like a registry that all
   processes have left in order.
2. No process holds a lease, and the registry contains another process, or at the last write the
   epoch was less than one warm-up ago. Either the processes were killed, or they are alive and
   Redis hung or its clock jumped ahead: then they write again within a warm-up.
3. No process has written for longer than a warm-up, and the lease of another process has ended or
   ends within a warm-up. As in 2, except that a process with a longer lease, or one that wrote
   later, still holds its lease. The length of the leases does not matter here: the processes of a
   deploy may have two lengths, and a late write of one with the longer lease must not hide the
   silence. Reads return WARMING_UP in this case as well, since they may precede the first write.
4. The last write is in the future: the clock jumped back. Leases are cut to their usual length,
   because those of dead processes would last longer by the length of the jump.

When a process is dead: a process that exits in order deletes its entry in the registry (REMOVE). If
the lease of another has ended, and the epoch is one warm-up ago, then Redis served that process and
it did not write: it was killed, hangs or is cut off. The next process that writes or exits deletes
its entry.

So if the epoch is one warm-up ago and the registry has no process, all have exited in order or are
dead, and the first process of the next start need not wait for a whole warm-up. Only one kind of
process can be missing from these data: one that started while Redis was down, or whose entry was
lost when Redis loaded an old snapshot. It retries every RETRY_INTERVAL, and writes at most
CATCH_UP_GRACE later. So the first process waits for the settle time, RETRY_INTERVAL +
CATCH_UP_GRACE + 0.1 s. Losses by a restart or a failover cannot be seen here: each process detects
them when it connects (`RestartDetector`).
"""

PROCESSES = "{echo}:processes"
EPOCH = "{echo}:born"
SHARE = "{echo}:share:"
LEADER = "{echo}:announcer"
LEDGER = "{echo}:announced"

# What COUNT, COUNTS and RESERVE return instead of a number: the epoch is so recent that a process
# may not have written yet; a live process has no share; the caller holds no lease; there is no
# epoch.
WARMING_UP, MISSING, NO_LEASE, LOST = -1, -2, -3, -4
# What LEAD returns instead of a stamp.
NO_LEADER, OTHER_LEADER = 0, 1

# KEYS: processes, epoch. ARGV: id of the caller, warm-up in ms.
_REGISTRY = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local processes, epoch_key = KEYS[1], KEYS[2]
local caller_id, warm_up = ARGV[1], ARGV[2] * 1000
local epoch = tonumber(redis.call('GET', epoch_key) or '')
local last = tonumber(redis.call('ZSCORE', processes, '') or '')
local function text(number) return string.format('%.0f', number) end

-- The ids whose leases end then, without "": 3 are enough to find one that is not the caller's.
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
    if id ~= caller_id then return true end
  end
  return false
end
local function is_lost() return not epoch or not last end
local function has_jumped_back() return last > now + warm_up end
local function may_have_hung()
  return now - last > warm_up and (last - epoch < warm_up or has_others_until(now + warm_up))
end
"""

# Starts a new epoch if the keys cannot be trusted, deletes dead processes, and records the time.
_UPDATE_REGISTRY = """
local function start_epoch()
  epoch = now
  redis.call('SET', epoch_key, text(epoch))
end
local function update_registry(is_doubtful)
  if is_doubtful or is_lost() or has_jumped_back() or may_have_hung() then start_epoch() end
  if now - epoch >= warm_up then redis.call('ZREMRANGEBYSCORE', processes, '-inf', text(now)) end
  redis.call('ZADD', processes, text(now), '')
end
"""

# Write counts of a process, and renew its lease. The numbers are absolute: a step may be repeated,
# merged or lost. If the share is missing or older than the process knows (expiry, FLUSHALL, an old
# snapshot, a failover), the step writes nothing and returns 0: the process must write its whole
# share. The same if the share is newer than the step, which then comes late, from a connection that
# was given up. If both have the same number, Redis has already run this step: the client of a
# cluster repeats a step whose reply was lost.
# KEYS: processes, epoch, share. ARGV: id, warm-up, settle time and lease in ms, sequence number
# that Redis has acknowledged, that of this step, "1" for a whole share, then names and counts.
WRITE = (
    _REGISTRY
    + _UPDATE_REGISTRY
    + """
local share = KEYS[3]
local settle, lease = ARGV[3] * 1000, ARGV[4] * 1000
local sequence = tonumber(redis.call('HGET', share, '') or -1)
if sequence == tonumber(ARGV[6]) then return 1 end
if sequence > tonumber(ARGV[6]) then return 0 end
if ARGV[7] == '1' then
  redis.call('DEL', share)
elseif sequence < 0 or sequence < tonumber(ARGV[5])
    or not redis.call('ZSCORE', processes, caller_id) then
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
    is_doubtful = last - epoch < warm_up or has_others_until(now)
    if now - epoch > warm_up - settle then
      epoch = now - warm_up + settle
      redis.call('SET', epoch_key, text(epoch))
    end
  end
end
update_registry(is_doubtful)
for i = 8, #ARGV, 2 do
  if ARGV[i + 1] == '0' then
    redis.call('HDEL', share, ARGV[i])
  else
    redis.call('HSET', share, ARGV[i], ARGV[i + 1])
  end
end
redis.call('HSET', share, '', ARGV[6])
redis.call('PEXPIRE', share, ARGV[4])
redis.call('ZADD', processes, text(now + lease), caller_id)
return 1
"""
)

# And the ids of the processes that hold a lease. ARGV: and the prefix of shares.
_LIVE = (
    _REGISTRY
    + """
if is_lost() then return -4 end
if now - epoch < warm_up or has_jumped_back() or may_have_hung() then return -1 end
local live = ids('(' .. text(now), '+inf')
"""
)

# ARGV: and a name. `total` is the sum of its counts in all processes; `caller_share` has the
# sequence number and the count of the caller.
_SUM = (
    _LIVE
    + """
local total, caller_share = 0, nil
for _, id in ipairs(live) do
  local share = redis.call('HMGET', ARGV[3] .. id, '', ARGV[4])
  if not share[1] then return -2 end
  if id == caller_id then caller_share = share end
  total = total + (share[2] or 0)
end
if not caller_share then return -3 end
"""
)

# The count of one object in all processes.
COUNT = _SUM + "return total"

# The shares of all processes: the names and counts of each, a line each. If they have more names
# than one step may read without delaying other clients, their keys instead, for SCAN_SHARE.
# ARGV: and how many names one step may read.
COUNTS = (
    _LIVE
    + """
local shares, size, has_lease = {}, 0, false
for _, id in ipairs(live) do
  shares[#shares + 1] = ARGV[3] .. id
  local length = redis.call('HLEN', ARGV[3] .. id)
  if length == 0 then return -2 end
  has_lease = has_lease or id == caller_id
  size = size + length
end
if not has_lease then return -3 end
if size > tonumber(ARGV[4]) then return {1, shares} end
for number, share in ipairs(shares) do
  shares[number] = table.concat(redis.call('HGETALL', share), '\\n')
end
return {0, shares}
"""
)

# Some names and counts of a share, a line each. KEYS: share. ARGV: cursor, about how many.
SCAN_SHARE = """
if redis.call('EXISTS', KEYS[1]) == 0 then return -2 end
local part = redis.call('HSCAN', KEYS[1], ARGV[1], 'COUNT', ARGV[2])
return {part[1], table.concat(part[2], '\\n')}
"""

# Reserve as many of the wanted connections as the limit allows, and return how many. Grants nothing
# if it comes late, after the share has been written again.
# KEYS: and the share of the caller. ARGV: and the count of the caller, how many are wanted, the
# limit, the sequence number that Redis has acknowledged.
RESERVE = (
    _SUM
    + """
if caller_share[1] ~= ARGV[8] then return -2 end
local others = total - (caller_share[2] or 0)
local granted = math.max(0, math.min(ARGV[6], ARGV[7] - ARGV[5] - others))
if granted > 0 then redis.call('HSET', KEYS[3], ARGV[4], ARGV[5] + granted) end
return granted
"""
)

# Orderly exit: delete the share at once.
# KEYS: processes, epoch, share, leader. ARGV: id, warm-up in ms.
REMOVE = (
    _REGISTRY
    + _UPDATE_REGISTRY
    + """
update_registry(false)
redis.call('ZREM', processes, caller_id)
redis.call('DEL', KEYS[3])
if redis.call('GET', KEYS[4]) == caller_id then redis.call('DEL', KEYS[4]) end
return 1
"""
)

# Stay the leader, or become it, and return the stamp of the ledger.
# KEYS: leader, ledger. ARGV: id, lease in ms, "1" to become the leader if there is none.
LEAD = """
local leader = redis.call('GET', KEYS[1])
if not leader and ARGV[3] == '0' then return 0 end
if leader and leader ~= ARGV[1] then return 1 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return redis.call('HGET', KEYS[2], '') or ''
"""

# Record counts in the ledger and return 1; return 0 if the caller is not the leader.
# KEYS: leader, ledger. ARGV: id, stamp, "1" to replace the whole ledger, then names and counts ("":
# vacated).
RECORD = """
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

# The whole ledger. KEYS: leader, ledger.
RECORDED = "return redis.call('HGETALL', KEYS[2])"
