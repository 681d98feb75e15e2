"""The steps of the state: Lua scripts, which Redis runs atomically and by its own clock.

All keys have the hash tag `{echo}`, so that a Redis Cluster keeps them on one node, and the version
of this layout, so that processes of releases with different layouts share no keys.

| key                     | type       | contents                                                 |
|-------------------------|------------|----------------------------------------------------------|
| `{echo}:2:meta`         | hash       | the fields below; times in µs                            |
| `{echo}:2:totals`       | hash       | name -> number of connections; "/epoch"                  |
| `{echo}:2:members:<name>` | hash     | member key -> its presence: "connections since changed   |
|                         |            | info", see members.py; "" -> epoch                       |
| `{echo}:2:share:<id>`   | hash       | name -> number of connections in that process;           |
|                         |            | "name/key" -> the same for a member;                     |
|                         |            | "/epoch"; "/sequence" -> number of its last write;       |
|                         |            | "/granted" -> result of the last reservations;           |
|                         |            | "/cursor" -> rest of the share of a dead process         |
| `{echo}:2:processes`    | sorted set | the registry: process id -> end of its lease; 0 if the   |
|                         |            | process is dead and its share is being subtracted        |
| `{echo}:2:awaited`      | set        | ids that have not written their whole share since the    |
|                         |            | epoch began                                              |
| `{echo}:2:leader`       | string     | id of the leader, the process that sends the signals     |
| `{echo}:2:ledger`       | hash       | name -> count that signals were last sent for, 0 until   |
|                         |            | the object is vacated; "name/key" -> presence of a       |
|                         |            | member, if the signals of members have receivers, until  |
|                         |            | `member_left` is sent; "/epoch"                          |
| `{echo}:2:changes`      | channel    | the feed: number of the change, then names and totals;   |
|                         |            | the number alone if a new epoch begins                   |

Names of objects contain no "/" and no line break, member keys no line break.

The invariant, true after each step: *the totals are the sum of the shares of all registered
processes whose "/epoch" is the current epoch*. Each step changes a share and the totals together,
by the difference of the old and the new number. So the numbers that processes write are absolute,
and a write may be repeated, merged, late or lost. The numbers of connections in the hashes of
members are totals, too; a hash of an earlier epoch counts as empty.

The count of an object is its total, less the numbers in the shares of dead processes, whose lease
has ended. Writes subtract the share of a dead process from the totals in slices.

An epoch is the time since which no loss of data, restart or outage of Redis is known. When a new
epoch begins, the totals are deleted, each process writes its whole share again, and all processes
in the registry are awaited: until each has written, or its lease has ended, the sum is unknown.
Processes also remember the live ids that they last saw, so that a registry that was lost, or is an
old snapshot, is completed by their next writes. The sum stays unknown for one warm-up (heartbeat +
CATCH_UP_GRACE) in any case, within which live processes that nobody remembers write. A write begins
a new epoch in these cases:

1. `meta` or the totals are missing, the registry of totals, or the share of the writer: they were
   flushed or evicted.
2. The server has another run id than the one that began the epoch: it was restarted and may have
   loaded an old snapshot, or is a promoted replica and may lack the last writes.
3. No process has written for the time in which one should have (`silence`, the shortest warm-up of
   all processes), and the registry contains another process: Redis hung or was unreachable, or its
   clock jumped ahead. The leases that ended meanwhile prove nothing.
4. The last write is in the future: the clock jumped back.
5. The share of the writer is older than its last acknowledged write.

If the writer finds no live process, all others have exited or are dead, except for those that
started while Redis was down. These retry every RETRY_INTERVAL, so the sum is known after the settle
time (RETRY_INTERVAL + CATCH_UP_GRACE + 0.1 s).
"""

from hashlib import sha1

PREFIX = "{echo}:2:"
META = PREFIX + "meta"
TOTALS = PREFIX + "totals"
PROCESSES = PREFIX + "processes"
AWAITED = PREFIX + "awaited"
LEADER = PREFIX + "leader"
LEDGER = PREFIX + "ledger"
SHARE = PREFIX + "share:"
MEMBERS_OF = PREFIX + "members:"
CHANGES = PREFIX + "changes"

# Results of reads and reservations if the sum is unknown.
LOST, WARMING_UP, AWAITING, NO_LEASE, STALE = -1, -2, -3, -4, -5
NO_LEADER, OTHER_LEADER, IS_LEADER = 0, 1, 2
# Result of a write that Redis cannot apply: the process writes its whole share.
WHOLE_NEEDED = 0

MAX_OBJECTS = 16  # of one connection; `counted` allows fewer
SLICE = 500  # names of a dead process that one step subtracts
MAX_AGE = 24 * 3600  # seconds after which Redis deletes the keys if all processes have been killed


class Script:
    """A Lua script with named keys and arguments; an argument that ends with `#` is a number.

    The script accesses all further arguments as `ARGV[i]`, from `i = first`.
    """

    def __init__(self, keys: str, args: str, body: str) -> None:
        self.keys, self.args = keys.split(), [name.rstrip("#") for name in args.split()]
        lines = [f"local {name} = KEYS[{i}]" for i, name in enumerate(self.keys, 1)]
        for i, name in enumerate(args.split(), 1):
            value = f"tonumber(ARGV[{i}])" if name.endswith("#") else f"ARGV[{i}]"
            lines.append(f"local {name.rstrip('#')} = {value}")
        lines.append(f"local first = {len(self.args) + 1}")
        lines.append(f"local share_prefix, members_prefix = '{SHARE}', '{MEMBERS_OF}'")
        lines.append(f"local channel, max_age = '{CHANGES}', {MAX_AGE}")
        self.text = "\n".join([*lines, body])
        self.sha = sha1(self.text.encode(), usedforsecurity=False).hexdigest()


_CLOCK = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local function text(number)
  if number < 1e6 then return string.format('%.0f', number) end
  -- Two integers of 32 bits take less time than one number as '%.0f'.
  return string.format('%d%06d', number / 1e6, number % 1e6)
end
local info = redis.call('INFO', 'server')
local _, label_end = string.find(info, 'run_id:', 1, true)  -- faster than a pattern
local server = label_end and string.match(info, '^%w+', label_end + 1)
if not server then return redis.error_reply('ERR INFO lacks run_id, which shows a restart.') end
local fields = redis.call('HMGET', meta,
  'epoch', 'known_from', 'written', 'server', 'silence', 'lease', 'change', 'registry')
local epoch, known_from, written = fields[1], tonumber(fields[2]), tonumber(fields[3])
local silence, longest_lease, change = tonumber(fields[5]), tonumber(fields[6]), tonumber(fields[7])
if redis.call('HGET', totals, '/epoch') ~= epoch then epoch = false end
if server ~= fields[4] then epoch = false end

local function ids(from, to, ...) return redis.call('ZRANGEBYSCORE', processes, from, to, ...) end
local function is_alive(process)
  local lease_end = redis.call('ZSCORE', processes, process)
  return lease_end and tonumber(lease_end) > now
end
local dead
-- The number of connections in all live processes, of an object or, if `name` is "name/key", of a
-- member.
local function live(name, total)
  dead = dead or ids('-inf', text(now))
  for _, process in ipairs(dead) do
    local share = redis.call('HMGET', share_prefix .. process, '/epoch', name)
    if share[1] == epoch then total = total - (share[2] or 0) end
  end
  return total
end
"""

# Returns from the script if the sum is unknown. The SETRANGE changes nothing, but fails where a
# write would: on a replica, without memory, with too few replicas. Other processes cannot write
# there either, so the sum may be wrong.
_REQUIRE_KNOWN = """
redis.call('SETRANGE', leader_key, 0, '')
if not epoch then return -1 end
if now < known_from or now - written > silence or written > now + silence then return -2 end
for _, process in ipairs(redis.call('SMEMBERS', awaited)) do
  if is_alive(process) then return -3 end
end
if not is_alive(id) then return -4 end
"""

# Applies differences to the totals and publishes them.
_CHANGE = """
local changed, must_read = {}, false
dead = ids('-inf', text(now))
local hashes = {}
-- The hash of the members of an object; empty if it was of an earlier epoch.
local function members_of(name)
  if not hashes[name] then
    local hash = members_prefix .. name
    if redis.call('HGET', hash, '') ~= epoch then
      redis.call('UNLINK', hash)
      redis.call('HSET', hash, '', epoch)
      redis.call('EXPIRE', hash, 2 * max_age)
    end
    hashes[name] = hash
  end
  return hashes[name]
end
-- Change the connections of a member. `value`: its presence in the process, if that is known.
local function change_member(entry, slash, difference, value, must_publish)
  local name, key = string.sub(entry, 1, slash - 1), string.sub(entry, slash + 1)
  local hash, pattern = members_of(name), '^(%d+) (%d+) (%d+) (.*)$'
  local stored = redis.call('HGET', hash, key)
  local total, since, changed_at, info
  if stored then
    total, since, changed_at, info = string.match(stored, pattern)
    total = total + difference
  else
    total = difference
  end
  if total <= 0 then  -- less than 0 if the hash has been evicted; the self-check repairs that
    total = 0
    redis.call('HDEL', hash, key)
    if redis.call('HLEN', hash) == 1 then
      redis.call('UNLINK', hash)
      hashes[name] = nil
    end
  elseif not stored and value and tonumber(string.match(value, '^%d+')) == total then
    -- Fast path: the member has connections in this process only.
    redis.call('HSET', hash, key, value)
    total = value
  else
    local _, new_since, new_changed_at, new_info = string.match(value or '', pattern)
    if not stored then
      since, changed_at, info = new_since or text(now), new_changed_at or '0', new_info or '{}'
    else
      local is_newer = new_info and tonumber(new_changed_at) > tonumber(changed_at)
      local is_older = new_since and tonumber(new_since) < tonumber(since)
      if is_newer then changed_at, info = new_changed_at, new_info end
      if is_older then since = new_since end
      if difference == 0 and not (is_newer or is_older or must_publish) then return end
    end
    local rest = ' ' .. since .. ' ' .. changed_at .. ' ' .. info
    redis.call('HSET', hash, key, text(total) .. rest)
    total = live(entry, total)
    if total > 0 then total = text(total) .. rest end
  end
  changed[#changed + 1] = entry
  changed[#changed + 1] = total
end
local function change_total(name, difference, value, must_publish)
  local slash = string.find(name, '/', 2, true)
  if slash then return change_member(name, slash, difference, value, must_publish) end
  local total = redis.call('HINCRBY', totals, name, difference)
  if total == 0 then redis.call('HDEL', totals, name) end
  changed[#changed + 1] = name
  changed[#changed + 1] = #dead > 0 and live(name, total) or total
end
-- Publish the changes, and set further fields of `meta`. Before the sum is known, subscribers need
-- no changes: they read all counts then.
local function publish(...)
  if must_read or (#changed > 0 and now >= known_from) then
    change = math.max(change + 1, tonumber(epoch))
    local message = text(change)
    if not must_read then message = message .. '\\n' .. table.concat(changed, '\\n') end
    redis.call('PUBLISH', channel, message)
  end
  redis.call('HSET', meta, 'change', text(change), ...)
end
"""

_READ_KEYS = "meta totals processes awaited leader_key"

# The count of one object, and the number of the last change.
COUNT = Script(
    _READ_KEYS,
    "id name",
    _CLOCK
    + _REQUIRE_KNOWN
    + """
return {live(name, tonumber(redis.call('HGET', totals, name) or 0)), change}
""",
)

# The epoch, the number of the last change, a cursor, and alternating lines of names and counts: all
# if there are at most `limit` names, else about `size` at the cursor.
COUNTS = Script(
    _READ_KEYS,
    "id cursor limit# size#",
    _CLOCK
    + _REQUIRE_KNOWN
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

# The number of the last change, the count of the object, the epoch, a cursor, and alternating lines
# of keys and presences of its members: all if there are at most `limit`, else about `size` at the
# cursor.
MEMBERS = Script(
    _READ_KEYS,
    "id name cursor limit# size#",
    _CLOCK
    + _REQUIRE_KNOWN
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
    _READ_KEYS,
    "id cursor size#",
    _CLOCK
    + _REQUIRE_KNOWN
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
    _READ_KEYS,
    "id name",
    _CLOCK
    + _REQUIRE_KNOWN
    + """
local hash = members_prefix .. name
if redis.call('HGET', hash, '') ~= epoch then return {0} end
if #ids('-inf', text(now), 'LIMIT', 0, 1) > 0 then return {-1} end
return {redis.call('HLEN', hash) - 1}
""",
)

# The presence of one member in a table; "0" if it has no connections.
MEMBER = Script(
    _READ_KEYS,
    "id name key",
    _CLOCK
    + _REQUIRE_KNOWN
    + """
local stored = redis.call('HMGET', members_prefix .. name, '', key)
if stored[1] ~= epoch or not stored[2] then return {'0'} end
local total, rest = string.match(stored[2], '^(%d+)(.*)$')
total = live(name .. '/' .. key, tonumber(total))
return {total > 0 and text(total) .. rest or '0'}
""",
)

# Write counts of a process, and renew its lease. Returns 0 and writes nothing if the process must
# write its whole share; else the epoch, the number of the last change, whether dead processes
# remain, NO_LEADER, OTHER_LEADER or IS_LEADER, the version of the registry, and the ids and lease
# ends of all live processes if `registry` is not that version.
#
# `begin`: "1" if the whole share follows, from nothing. `more`: "" unless the write is part of the
# whole share; "1" if further parts follow, until which the process is awaited; else "0".
# `acknowledged`, `sequence`: numbers of the last acknowledged write and of this one. `remembered`:
# "id,id" of the live processes that the process last saw, before `remembered_epoch` ended.
# `candidate`: "0", or to become the leader "1", "2" if the process has a copy of the ledger from an
# earlier epoch, "3" if it is the leader. Then names and counts, "name/key" and presences: if the
# count of an object is not given, it changes by the same difference as those of its members.
WRITE = Script(
    "meta totals processes awaited leader_key share ledger",
    "id warm_up# settle# lease# begin more acknowledged# sequence# "
    "remembered remembered_epoch candidate registry renew size#",
    _CLOCK
    + _CHANGE
    + """
local version, is_valid = fields[8], is_alive(id)
local function change_registry() version = text(redis.call('HINCRBY', meta, 'registry', 1)) end
local function await(process)
  redis.call('ZADD', processes, text(now + math.max(lease, longest_lease or 0)), process)
  redis.call('SADD', awaited, process)
  change_registry()
end
local function begin_epoch()
  epoch, must_read, dead, version, is_valid = text(now), true, {}, text(now), false
  known_from, silence, change = now + warm_up, warm_up, change or 0
  for _, process in ipairs(ids('-inf', '0')) do
    redis.call('ZREM', processes, process)
    redis.call('UNLINK', share_prefix .. process)
  end
  for _, process in ipairs(ids('-inf', '+inf')) do await(process) end
  longest_lease = lease
  redis.call('UNLINK', totals)
  redis.call('HSET', totals, '/epoch', epoch)
  redis.call('HSET', meta, 'epoch', epoch, 'known_from', text(known_from), 'server', server,
    'silence', text(silence), 'lease', text(lease), 'change', text(change), 'registry', epoch)
end
-- Begin a new epoch if the keys cannot be trusted.
local function check_epoch()
  if not epoch or not written then return begin_epoch() end
  local latest = now + 2 * warm_up + longest_lease
  if written > now + warm_up or known_from > latest then return begin_epoch() end
  if not is_valid and redis.call('HLEN', totals) > 1
      and redis.call('ZCARD', processes) == 0 then
    return begin_epoch()
  end
  if now - written > silence then
    for _, process in ipairs(ids('(0', '+inf', 'LIMIT', 0, 2)) do
      if process ~= id then return begin_epoch() end
    end
  end
  if is_valid or known_from >= now + settle then return end
  if #ids('(' .. text(now), '+inf', 'LIMIT', 0, 1) == 0 then
    known_from, must_read = now + settle, true
    redis.call('HSET', meta, 'known_from', text(known_from))
  end
end
-- Subtract a slice of the share of a dead process; return whether dead processes remain.
local function sweep()
  if #dead == 0 then return 0 end
  for _, process in ipairs(ids('(0', text(now))) do
    if process ~= id then
      redis.call('ZADD', processes, 0, process)
      redis.call('SREM', awaited, process)
      change_registry()
      must_read = must_read or redis.call('HLEN', share_prefix .. process) > size
    end
  end
  local process = ids('-inf', '0', 'LIMIT', 0, 1)[1]
  if not process then return 0 end
  local key, slice = share_prefix .. process, math.max(10, math.floor(size / #dead))
  if redis.call('HGET', key, '/epoch') == epoch then
    local cursor, found = redis.call('HGET', key, '/cursor') or '0', 0
    repeat
      local part = redis.call('HSCAN', key, cursor, 'COUNT', slice)
      cursor = part[1]
      for i = 1, #part[2], 2 do
        local name = part[2][i]
        if string.sub(name, 1, 1) ~= '/' then
          redis.call('HDEL', key, name)
          change_total(name, -part[2][i + 1])
          found = found + 1
        end
      end
    until found > 0 or cursor == '0'
    if cursor ~= '0' then
      -- Continue there: from the beginning, a scan would pass more and more deleted names.
      redis.call('HSET', key, '/cursor', cursor)
      return 1
    end
  end
  redis.call('UNLINK', key)
  redis.call('ZREM', processes, process)
  return #ids('-inf', '0', 'LIMIT', 0, 1)
end
-- The numbers in the share, to be replaced by the whole share that follows.
local function old_counts()
  local counts = {}
  if redis.call('HGET', share, '/epoch') == epoch then
    if redis.call('HLEN', share) - 2 > size then
      -- Too many for one step: they are subtracted as those of a dead process.
      local former = id .. ':' .. sequence
      redis.call('RENAME', share, share_prefix .. former)
      redis.call('ZADD', processes, 0, former)
    else
      local entries = redis.call('HGETALL', share)
      for i = 1, #entries, 2 do
        counts[entries[i]] = tonumber(entries[i + 1])
      end
    end
  end
  redis.call('UNLINK', share)
  for _, field in ipairs({'/epoch', '/sequence', '/cursor', '/granted'}) do counts[field] = nil end
  return counts
end
local function write()
  local read = {'HMGET', share, '/epoch', '/sequence'}
  for i = first, begin == '0' and #ARGV or 0, 2 do read[#read + 1] = ARGV[i] end
  local own = redis.call(unpack(read))
  local current = own[1] == epoch and tonumber(own[2]) or -1
  if current == sequence then return true end
  if current > sequence then return false end
  local old, set = {}, {'HSET', share, '/sequence', sequence}
  if begin == '1' then
    local is_large = more == '1' or redis.call('HLEN', share) - 2 > size
    if is_valid and current >= 0 and is_large then begin_epoch() end  -- subscribers see no parts
    old = old_counts()
    set[5], set[6] = '/epoch', epoch
  elseif not is_valid or current < acknowledged then
    if is_valid and redis.call('SISMEMBER', awaited, id) == 0 then begin_epoch() end
    return false
  end
  redis.call('ZADD', processes, text(now + lease), id)
  if not is_valid then
    change_registry()
    dead = ids('-inf', text(now))  -- if the process was dead, its share counts again
  end
  if begin == '1' and remembered_epoch ~= epoch then
    for process in string.gmatch(remembered, '[^,]+') do
      if not redis.call('ZSCORE', processes, process) then await(process) end
    end
  end
  local counted, of_members = {}, {}
  for i = first, #ARGV, 2 do
    local name, count, presence = ARGV[i], tonumber(ARGV[i + 1]), nil
    local slash = more == '' and string.find(name, '/', 2, true)
    local of = slash and string.sub(name, 1, slash - 1)
    if not of then counted[name] = true end
    if not count then
      presence = ARGV[i + 1]
      count = tonumber(string.match(presence, '^%d+'))
      if renew == '1' then
        redis.call('EXPIRE', members_prefix .. string.match(name, '^[^/]+'), 2 * max_age)
      end
    end
    local previous = tonumber((begin == '1' and old[name] or own[(i - first) / 2 + 3]) or 0)
    old[name] = nil
    if count == 0 then
      redis.call('HDEL', share, name)
    else
      set[#set + 1] = name
      set[#set + 1] = presence and count or ARGV[i + 1]
    end
    -- The info of a member may change while its number of connections does not. If the process was
    -- dead, all of its names have changed.
    if count ~= previous or presence or not is_valid then
      change_total(name, count - previous, presence, not is_valid)
    end
    if of then of_members[of] = (of_members[of] or 0) + count - previous end
  end
  for name, difference in pairs(of_members) do
    if difference ~= 0 and not counted[name] then
      local count = redis.call('HINCRBY', share, name, difference)
      if count == 0 then redis.call('HDEL', share, name) end
      change_total(name, difference)
    end
  end
  for name, count in pairs(old) do change_total(name, -count) end
  redis.call(unpack(set))
  if more ~= '' then redis.call(more == '1' and 'SADD' or 'SREM', awaited, id) end
  return true
end
local function lead()
  local leader = redis.call('GET', leader_key)
  if leader == id then return 2 end
  if leader and is_alive(leader) then return 1 end
  if candidate == '0' then return 0 end
  if candidate == '1' and now < known_from + warm_up then return 0 end
  if candidate == '2' and now < known_from then return 0 end
  redis.call('SET', leader_key, id, 'EX', max_age)
  return 2
end

check_epoch()
local is_written = write()
local remaining = sweep()
if silence < warm_up and is_written and redis.call('ZCARD', processes) == 1 then
  silence = warm_up
end
publish('written', text(now), 'silence', text(math.min(silence, warm_up)),
  'lease', text(math.max(longest_lease, lease)))
if not is_written then return 0 end
if renew == '1' or begin == '1' then
  redis.call('EXPIRE', share, 2 * max_age)
  for _, key in ipairs({meta, totals, processes, awaited}) do
    redis.call('EXPIRE', key, max_age)
  end
  -- Without a leader, the ledger expires: it may contain infos of members.
  if redis.call('GET', leader_key) == id then
    redis.call('EXPIRE', leader_key, max_age)
    redis.call('EXPIRE', ledger, max_age)
  end
end
local list = false
if registry ~= version then
  list = redis.call('ZRANGEBYSCORE', processes, '(' .. text(now), '+inf', 'WITHSCORES')
end
return {epoch, change, remaining, lead(), version, list}
""",
)

# Orderly exit: withdraw the counts of the process at once, or leave a large share to the others.
REMOVE = Script(
    f"{_READ_KEYS} share",
    "id size#",
    _CLOCK
    + _CHANGE
    + """
if redis.call('GET', leader_key) == id then redis.call('DEL', leader_key) end
redis.call('SREM', awaited, id)
if epoch then redis.call('HINCRBY', meta, 'registry', 1) end
if epoch and redis.call('HGET', share, '/epoch') == epoch then
  if redis.call('HLEN', share) - 2 > size then
    redis.call('ZADD', processes, 'XX', 0, id)
    must_read = true
    return publish()
  end
  local entries = redis.call('HGETALL', share)
  redis.call('UNLINK', share)
  redis.call('ZREM', processes, id)
  for i = 1, #entries, 2 do
    if string.sub(entries[i], 1, 1) ~= '/' then change_total(entries[i], -entries[i + 1]) end
  end
  return publish()
end
redis.call('UNLINK', share)
return redis.call('ZREM', processes, id)
""",
)

# Reserve connections of groups that have the same objects: of each group in turn, as many of the
# wanted ones as the limits of all its objects allow. Returns a string with a number for each group:
# MAX_OBJECTS * its connections + the index of the object that allows the fewest. A repeated step
# returns the same; a late step, after a newer one of the process, reserves nothing.
#
# `extra`: the name for the objects of a connection beyond its first. Then, for each group, how many
# connections are wanted, the number of objects, and for each object its name, the count of the
# process, and the limit or "".
RESERVE = Script(
    f"{_READ_KEYS} share",
    "id extra acknowledged sequence",
    _CLOCK
    + _CHANGE
    + _REQUIRE_KNOWN
    + f"""
local own = redis.call('HMGET', share, '/epoch', '/sequence', '/granted')
if own[1] == epoch and own[2] == sequence then return own[3] end
if own[1] ~= epoch or own[2] ~= acknowledged then return -5 end
-- Not the given counts: connections that have joined or left since the last write are still to be
-- written, together with their members and other objects.
local reserved = {{}}
local function add(name, number)
  reserved[name] = (reserved[name] or 0) + number
  redis.call('HINCRBY', share, name, number)
  change_total(name, number)
end
local results, further, i = {{}}, 0, first
while ARGV[i] do
  local granted, objects, full = tonumber(ARGV[i]), tonumber(ARGV[i + 1]), 0
  for n = 0, objects - 1 do
    local at = i + 2 + 3 * n
    local name, count, limit = ARGV[at], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
    if limit then
      count = count + (reserved[name] or 0)
      local previous = tonumber(redis.call('HGET', share, name) or 0)
      local others = live(name, tonumber(redis.call('HGET', totals, name) or 0)) - previous
      local free = math.max(0, limit - math.max(count, previous) - others)
      if free < granted then granted, full = free, n end
    end
  end
  if granted > 0 then
    for n = 0, objects - 1 do add(ARGV[i + 2 + 3 * n], granted) end
    further = further + (objects - 1) * granted
  end
  results[#results + 1] = text({MAX_OBJECTS} * granted + full)
  i = i + 2 + 3 * objects
end
if further > 0 then add(extra, further) end
local result = table.concat(results, ' ')
redis.call('HSET', share, '/sequence', sequence, '/granted', result)
if #changed > 0 then publish() end
return result
""",
)

# Check the invariant for a part of the totals: those of all objects; those of the members of
# `object`; those of the share of `process`; or those of the members of further objects. Repairs
# each wrong total. Returns the next cursor, a list of each wrong name, its total and the sum, and a
# list of objects: those with members; of the further objects, those that are too many for the step.
CHECK = Script(
    _READ_KEYS,
    "id object process cursor size#",
    _CLOCK
    + _CHANGE
    + """
if not epoch or not is_alive(id) then return {'0', {}, {}} end  -- a write will begin a new epoch
local shares, wrong, objects = {}, {}, {}
for _, each in ipairs(ids('-inf', '+inf')) do
  local key = share_prefix .. each
  if redis.call('HGET', key, '/epoch') == epoch then shares[#shares + 1] = key end
end
local function check(name, total)
  local sum = 0
  total = tonumber(total)
  for _, each in ipairs(shares) do sum = sum + (redis.call('HGET', each, name) or 0) end
  if sum == total then return end
  change_total(name, sum - total)
  for _, each in ipairs({name, text(total), text(sum)}) do wrong[#wrong + 1] = each end
end
local function check_members(name, entries)
  for i = 1, #entries, 2 do
    local key, total = entries[i], string.match(entries[i + 1], '^%d+')
    if key ~= '' then check(name .. '/' .. key, total) end
  end
end
local function has_members(name)
  return redis.call('HGET', members_prefix .. name, '') == epoch
end
local part, scanned = {'0', {}}, first > #ARGV and totals
if process ~= '' then scanned = share_prefix .. process end
if object ~= '' then scanned = has_members(object) and members_prefix .. object end
if scanned then part = redis.call('HSCAN', scanned, cursor, 'COUNT', size) end
if object ~= '' then
  check_members(object, part[2])
  part[2] = {}
end
for i = 1, #part[2], 2 do
  local name = part[2][i]
  local of, key = string.match(name, '^([^/]+)/(.+)$')
  if of then
    local stored = has_members(of) and redis.call('HGET', members_prefix .. of, key)
    check(name, stored and string.match(stored, '^%d+') or 0)
  elseif string.sub(name, 1, 1) ~= '/' then
    check(name, redis.call('HGET', totals, name) or 0)
    if scanned == totals and has_members(name) then objects[#objects + 1] = name end
  end
end
for i = first, #ARGV do
  local name = ARGV[i]
  size = size - redis.call('HLEN', members_prefix .. name)
  if size < 0 then
    objects[#objects + 1] = name
  elseif has_members(name) then
    check_members(name, redis.call('HGETALL', members_prefix .. name))
  end
end
publish()
return {part[1], wrong, objects}
""",
)

# Record counts and presences in the ledger and return 1; return 0 if the caller is not the leader.
# `whole`: "1" to replace the whole ledger. `epoch`: "" if further parts follow. Then names and
# counts, "name/key" and presences ("": vacated, or left).
RECORD = Script(
    "leader_key ledger",
    "id epoch whole",
    """
if redis.call('GET', leader_key) ~= id then return 0 end
if whole == '1' then redis.call('UNLINK', ledger) end
for i = first, #ARGV, 2 do
  if ARGV[i + 1] == '' then
    redis.call('HDEL', ledger, ARGV[i])
  else
    redis.call('HSET', ledger, ARGV[i], ARGV[i + 1])
  end
end
if epoch ~= '' then redis.call('HSET', ledger, '/epoch', epoch) end
redis.call('EXPIRE', ledger, max_age)
return 1
""",
)

# The next cursor, and the part of the ledger at the cursor: alternating lines of names and values.
RECORDED = Script(
    "ledger",
    "cursor size#",
    """
local part = redis.call('HSCAN', ledger, cursor, 'COUNT', size)
return {part[1], table.concat(part[2], '\\n')}
""",
)
