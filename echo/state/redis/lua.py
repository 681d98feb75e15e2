"""Lua that several scripts share."""

CLOCK = """
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

local function bucket_key(share, bucket) return bucket == 0 and share or share .. '/' .. bucket end
local hashed, hash
-- The bucket of a name in a share of so many buckets.
local function bucket_of(name, buckets)
  if buckets == 1 then return 0 end
  if name ~= hashed then
    -- Clients do not know the run id, so they cannot choose names that share a bucket.
    hashed, hash = name, tonumber(string.sub(redis.sha1hex(server .. name), 1, 8), 16)
  end
  local _, exponent = math.frexp(buckets - 1)
  local bucket = hash % 2 ^ exponent
  return bucket < buckets and bucket or bucket - 2 ^ (exponent - 1)
end

local dead
-- The number of connections in all live processes, of an object or, if `name` is "name/key", of a
-- member.
local function live(name, total)
  dead = dead or ids('-inf', text(now))
  for _, process in ipairs(dead) do
    local share = share_prefix .. process
    local fields = redis.call('HMGET', share, '/epoch', '/buckets')
    if fields[1] == epoch then
      local bucket = bucket_key(share, bucket_of(name, tonumber(fields[2] or 1)))
      total = total - (redis.call('HGET', bucket, name) or 0)
    end
  end
  return total
end
"""

# Returns from the script if the sum is unknown. The SETRANGE changes nothing, but fails where a
# write would: on a replica, without memory, with too few replicas. Other processes cannot write
# there either, so the sum may be wrong.
REQUIRE_KNOWN = """
redis.call('SETRANGE', leader_key, 0, '')
if not epoch then return -1 end
if now < known_from or now - written > silence or written > now + silence then return -2 end
for _, process in ipairs(redis.call('SMEMBERS', awaited)) do
  if is_alive(process) then return -3 end
end
if not is_alive(id) then return -4 end
"""

# Applies differences to the totals and publishes them.
CHANGE = """
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

# Reads and changes the share of the process.
OWN_SHARE = """
local own = redis.call('HMGET', share, '/epoch', '/sequence', '/buckets', '/names')
local buckets, names = tonumber(own[3] or 1), tonumber(own[4] or 0)
local function add_to_share(name, difference)
  local key = bucket_key(share, bucket_of(name, buckets))
  local count = redis.call('HINCRBY', key, name, difference)
  if count == difference then names = names + 1 end
  if count == 0 then names = names - redis.call('HDEL', key, name) end
end
local function numbers_in_share()
  local numbers = {}
  for bucket = 0, buckets - 1 do
    local entries = redis.call('HGETALL', bucket_key(share, bucket))
    for i = 1, #entries, 2 do
      if string.sub(entries[i], 1, 1) ~= '/' then numbers[entries[i]] = tonumber(entries[i + 1]) end
    end
  end
  return numbers
end
local function unlink_share(key)
  for bucket = 1, (redis.call('HGET', key, '/buckets') or 1) - 1 do
    redis.call('UNLINK', bucket_key(key, bucket))
  end
  redis.call('UNLINK', key)
end
-- Add a bucket, and move names there: about half of those of one other bucket.
local function add_bucket()
  local _, exponent = math.frexp(buckets)
  local added, key = buckets, bucket_key(share, buckets)
  local split = bucket_key(share, added - 2 ^ (exponent - 1))
  local set, delete = {'HSET', key}, {'HDEL', split}
  local entries = names > 0 and redis.call('HGETALL', split) or {'/epoch', epoch}
  buckets = buckets + 1
  for i = 1, #entries, 2 do
    local name = entries[i]
    local is_name = string.sub(name, 1, 1) ~= '/'
    if name == '/epoch' or is_name and bucket_of(name, buckets) == added then
      set[#set + 1], set[#set + 2] = name, entries[i + 1]
      if is_name then delete[#delete + 1] = name end
    end
  end
  redis.call('UNLINK', key)  -- the rest of a share that was lost
  if #set > 2 then redis.call(unpack(set)) end  -- else the bucket to split was evicted
  redis.call('EXPIRE', key, 2 * max_age)
  if #delete > 2 then redis.call(unpack(delete)) end
end
-- Have enough buckets for so many more names.
local function add_buckets(number)
  local most, before = names + number, buckets
  while most > max_in_one and most > bucket_size * buckets do add_bucket() end
  if buckets > before then redis.call('HSET', share, '/buckets', buckets) end
end
"""
