-- Reserve the next slot of a lane in a sliding log, on the server's own clock. All times are microseconds.
--
-- KEYS[1]  hash of the lane: run_id of the server that wrote it, slots s1 (oldest) .. sN
-- ARGV[1]  limit: slots allowed to start in any window
-- ARGV[2]  window: the provider's window plus the guard
-- ARGV[3]  lead: the slot must be at least this far ahead
-- returns  {1, slot, now, run_id} granted; {0, wait, now, run_id} ask again after wait
--
-- A missing key, another run_id (restart, failover) or another limit mean that slots may have been granted that are not
-- in the log: everything up to one window ahead counts as taken.
local limit, window, lead = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local t = redis.call('TIME')
local now = tonumber(t[1]) * 1000000 + tonumber(t[2])
local run_id = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')

local names = {'run_id', 'limit'}
for i = 1, limit do names[#names + 1] = 's' .. i end
local log = redis.call('HMGET', KEYS[1], unpack(names))

local slots = {}
local known = log[1] == run_id and log[2] == ARGV[1]
local lost = false
for i = 1, limit do
  local slot = known and tonumber(log[i + 2])
  if slot and slot <= now + 2 * window then
    slots[i] = slot
  else
    slots[i] = now + window -- lost, or written by a clock that ran ahead
    lost = true
  end
end

local slot = math.max(now + math.min(lead, window), slots[1] + window)
local write = {'run_id', run_id, 'limit', ARGV[1]}
local granted = slot - now <= window
for i = 1, limit do
  local value = slots[i]
  if granted then value = slots[i + 1] or slot end
  write[#write + 1] = 's' .. i
  write[#write + 1] = string.format('%.0f', value)
end
if granted or lost then
  redis.call('HSET', KEYS[1], unpack(write))
  -- Losing an idle log is safe (a loss only delays), so it need not stay for ever.
  redis.call('PEXPIRE', KEYS[1], 86400000)
end
if granted then
  return {1, string.format('%.0f', slot), string.format('%.0f', now), run_id}
end
return {0, string.format('%.0f', slot - now - window), string.format('%.0f', now), run_id}
