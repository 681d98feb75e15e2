"""The scripts that write the share of a process, and withdraw it."""

from echo.state.redis.lua import CHANGE, CLOCK
from echo.state.redis.scripts import READ_KEYS, Script

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
    CLOCK
    + CHANGE
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
    f"{READ_KEYS} share",
    "id size#",
    CLOCK
    + CHANGE
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
