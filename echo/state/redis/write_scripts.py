"""The scripts that write the share of a process, and withdraw it."""

from echo.state.redis.lua import CHANGE, CLOCK, OWN_SHARE
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
    + OWN_SHARE
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
    unlink_share(share_prefix .. process)
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
      local number = redis.call('HGET', share_prefix .. process, '/names')
      must_read = must_read or tonumber(number or 0) > size
    end
  end
  local process = ids('-inf', '0', 'LIMIT', 0, 1)[1]
  if not process then return 0 end
  local key, slice = share_prefix .. process, math.max(10, math.floor(size / #dead))
  local swept = redis.call('HMGET', key, '/epoch', '/buckets', '/swept')
  for bucket = tonumber(swept[3] or 0), swept[1] == epoch and (swept[2] or 1) - 1 or -1 do
    local entries = redis.call('HGETALL', bucket_key(key, bucket))
    for i = 1, #entries, 2 do
      local name = entries[i]
      if string.sub(name, 1, 1) ~= '/' then
        if slice == 0 then
          redis.call('HSET', key, '/swept', bucket)
          return 1
        end
        redis.call('HDEL', bucket_key(key, bucket), name)
        change_total(name, -entries[i + 1])
        slice = slice - 1
      end
    end
  end
  unlink_share(key)
  redis.call('ZREM', processes, process)
  return #ids('-inf', '0', 'LIMIT', 0, 1)
end
-- The numbers in the share, to be replaced by the whole share that follows.
local function old_counts()
  local counts = {}
  if own[1] == epoch and names <= size then
    counts = numbers_in_share()
  elseif own[1] == epoch then
    -- Too many for one step: they are subtracted as those of a dead process.
    local former = id .. ':' .. sequence
    for bucket = 0, buckets - 1 do  -- those that are missing have been subtracted before
      local key = bucket_key(share_prefix .. former, bucket)
      redis.pcall('RENAME', bucket_key(share, bucket), key)
    end
    redis.call('ZADD', processes, 0, former)
  end
  unlink_share(share)
  return counts
end
-- Have one bucket again, if few names remain.
local function join_buckets()
  if buckets == 1 or names > max_in_one / 4 then return end
  local set, found = {'HSET', share}, 0
  for name, number in pairs(numbers_in_share()) do
    set[#set + 1], set[#set + 2] = name, number
    found = found + 1
  end
  if found ~= names then return redis.call('HDEL', share, '/epoch') end  -- a bucket was evicted
  for bucket = 1, buckets - 1 do redis.call('UNLINK', bucket_key(share, bucket)) end
  buckets = 1
  redis.call('HDEL', share, '/buckets')
  if found > 0 then redis.call(unpack(set)) end
end
local bucket_by_name = {}
-- The numbers of the given names in the share; nothing if a bucket was evicted.
local function given_numbers()
  local numbers, reads = {}, {}
  for i = first, #ARGV, 2 do
    local name = ARGV[i]
    local bucket = bucket_of(name, buckets)
    local read = reads[bucket]
    if not read then
      read = {'HMGET', bucket_key(share, bucket), '/epoch'}
      reads[bucket] = read
    end
    read[#read + 1], bucket_by_name[name] = name, bucket
  end
  for _, read in pairs(reads) do
    local found = redis.call(unpack(read))
    if found[1] ~= epoch then return end
    for i = 2, #found do numbers[read[i + 2]] = found[i] end
  end
  return numbers
end
local function write()
  local current = own[1] == epoch and tonumber(own[2]) or -1
  if current == sequence then return true end
  if current > sequence then return false end
  local old, given = {}, {}
  if begin == '1' then
    local is_large = more == '1' or names > size
    if is_valid and current >= 0 and is_large then begin_epoch() end  -- subscribers see no parts
    old, buckets, names = old_counts(), 1, 0
    add_buckets((#ARGV - first + 1) / 2)
  elseif is_valid and current >= acknowledged then
    add_buckets((#ARGV - first + 1) / 2)
    given = given_numbers()
  else
    given = nil
  end
  if not given then
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
  -- With the fields of the share first, where Redis finds them soonest.
  local sets = {[0] = {'HSET', share, '/epoch', epoch, '/sequence', sequence, '/names', 0}}
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
    local previous = tonumber(old[name] or given[name] or 0)
    old[name] = nil
    local bucket = bucket_by_name[name] or bucket_of(name, buckets)
    if count == 0 then
      if given[name] then
        names = names - redis.call('HDEL', bucket_key(share, bucket), name)
      end
    else
      if not given[name] then names = names + 1 end
      local set = sets[bucket]
      if not set then
        set = {'HSET', bucket_key(share, bucket)}
        sets[bucket] = set
      end
      local size = #set
      set[size + 1], set[size + 2] = name, presence and count or ARGV[i + 1]
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
      add_to_share(name, difference)
      change_total(name, difference)
    end
  end
  for name, count in pairs(old) do change_total(name, -count) end
  sets[0][8] = names
  for _, set in pairs(sets) do redis.call(unpack(set)) end
  join_buckets()
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
  for bucket = 0, buckets - 1 do
    redis.call('EXPIRE', bucket_key(share, bucket), 2 * max_age)
  end
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
    + OWN_SHARE
    + """
if redis.call('GET', leader_key) == id then redis.call('DEL', leader_key) end
redis.call('SREM', awaited, id)
if epoch then redis.call('HINCRBY', meta, 'registry', 1) end
if epoch and own[1] == epoch then
  if names > size then
    redis.call('ZADD', processes, 'XX', 0, id)
    must_read = true
    return publish()
  end
  local numbers = numbers_in_share()
  unlink_share(share)
  redis.call('ZREM', processes, id)
  for name, number in pairs(numbers) do change_total(name, -number) end
  return publish()
end
unlink_share(share)
return redis.call('ZREM', processes, id)
""",
)
