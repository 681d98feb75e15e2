"""The steps of the state: Lua scripts, which Redis runs atomically and by its own clock.

All keys have the hash tag `{echo}`, so that a Redis Cluster keeps them on one node. During a
rolling deploy, processes of two releases share the keys. So the epoch, the leader and the ledger
keep their old keys: `born`, `announcer` and `announced`.

| key                    | type       | contents                                                   |
|------------------------|------------|------------------------------------------------------------|
| `{echo}:born`          | string     | the epoch: the time since which keys are trusted, in µs    |
| `{echo}:processes`     | sorted set | the registry: process id -> the end of its lease, in µs;   |
|                        |            | "" -> time of the last write or exit of any process        |
| `{echo}:share:<id>`    | hash       | name -> count in that process; "" -> sequence number       |
| `{echo}:announcer`     | string     | the id of the leader, the process that sends the signals   |
| `{echo}:announced`     | hash       | the ledger: name -> count that signals were last sent for, |
|                        |            | 0 until the object is vacated; "" -> stamp                 |

When the sum is known. While Redis is available, each live process writes at least once per warm-up
(heartbeat + CATCH_UP_GRACE). So after one warm-up without an outage or a loss of data, Redis has
the shares of all live processes. The epoch is the time since which no outage or loss is known. If
it is less than one warm-up ago, reads return WARMING_UP. A write sets the epoch to the current time
in four cases:

1. The epoch or the "" of the registry is missing: the keys were flushed or evicted, or never
   existed. No process deletes these two, so lost keys differ from the registry after the orderly
   exit of all processes.
2. No process holds a lease, and either the registry contains another process, or the epoch was less
   than one warm-up ago at the last write. The processes were killed; or they are alive, but Redis
   hung or its clock jumped ahead, and they write again within one warm-up.
3. No process has written for longer than one warm-up, and the lease of another process has ended or
   ends within one warm-up. This is like case 2, but some process with a longer lease or a later
   write still holds its lease. The rule does not depend on the length of the leases: during a
   deploy there may be two lengths, and a late write of a process with the longer lease must not
   hide the outage. In this case reads also return WARMING_UP, since they may come before the first
   write.
4. The last write is in the future: the clock jumped back. The write shortens all leases to the
   usual length; otherwise the jump would extend those of dead processes.

When a process is dead. At an orderly exit, a process deletes its entry in the registry (REMOVE). If
the lease of a process has ended and the epoch is at least one warm-up ago, Redis was available and
the process did not write: it was killed, hangs or has lost its connection. The next process that
writes or exits deletes that entry.

So if the epoch is at least one warm-up ago and the registry is empty, all processes have exited or
are dead, and the process that starts next need not wait for a whole warm-up. The only live
processes that can be missing from the registry are those that started while Redis was down, and
those whose entries were lost when Redis loaded an old snapshot. They retry every RETRY_INTERVAL,
and write at most CATCH_UP_GRACE later. So the first process waits for the settle time,
RETRY_INTERVAL + CATCH_UP_GRACE + 0.1 s. The scripts cannot detect losses by a restart or a
failover: each process detects them when it connects (`RestartDetector`).
"""

PROCESSES = "{echo}:processes"
EPOCH = "{echo}:born"
SHARE = "{echo}:share:"
LEADER = "{echo}:announcer"
LEDGER = "{echo}:announced"

# Results of COUNT, COUNTS and RESERVE if the sum is unknown:
# WARMING_UP: the epoch is so recent that a process may not have written yet.
# MISSING: a live process has no share. NO_LEASE: the caller holds no lease. LOST: there is no
# epoch.
WARMING_UP, MISSING, NO_LEASE, LOST = -1, -2, -3, -4
# Results of LEAD if the caller is not the leader.
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

-- The ids whose leases end in the range, except "".
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
-- Of three entries, at most two are "" and the caller.
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

# Write counts of a process, and renew its lease. The counts are absolute, so a step may be
# repeated, merged or lost. The step writes nothing and returns 0, so that the process writes its
# whole share, in two cases: the share is missing or older than the last acknowledged step (expiry,
# FLUSHALL, an old snapshot, a failover); or the share is newer than this step, which comes late
# from an abandoned connection. If share and step have the same sequence number, Redis has already
# run the step: the client of a cluster repeats a step if its reply was lost.
# KEYS: processes, epoch, share. ARGV: id, warm-up, settle time and lease in ms, sequence number of
# the last acknowledged step, sequence number of this step, "1" for a whole share, then names and
# counts.
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

# Extends _REGISTRY: `live` has the ids of the processes that hold a lease.
# ARGV: those of _REGISTRY, then the prefix of shares.
_LIVE = (
    _REGISTRY
    + """
if is_lost() then return -4 end
if now - epoch < warm_up or has_jumped_back() or may_have_hung() then return -1 end
local live = ids('(' .. text(now), '+inf')
"""
)

# Extends _LIVE: `total` is the sum of the counts of a name in all processes; `caller_share` has the
# sequence number and the count of the caller. ARGV: those of _LIVE, then the name.
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

# The shares of all processes, each as a string with a name or a count per line. If there are more
# names than one step may read without delaying other clients, the result has the keys of the shares
# instead, for SCAN_SHARE.
# ARGV: those of _LIVE, then the number of names that one step may read.
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

# A part of a share, with a name or a count per line.
# KEYS: share. ARGV: cursor, approximate number of names.
SCAN_SHARE = """
if redis.call('EXISTS', KEYS[1]) == 0 then return -2 end
local part = redis.call('HSCAN', KEYS[1], ARGV[1], 'COUNT', ARGV[2])
return {part[1], table.concat(part[2], '\\n')}
"""

# Reserve as many of the wanted connections as the limit allows, and return their number. A late
# step, after a newer write of the share, reserves nothing.
# KEYS: those of _SUM, then the share of the caller. ARGV: those of _SUM, then the count of the
# caller, the number of wanted connections, the limit, the sequence number of the last acknowledged
# step.
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
