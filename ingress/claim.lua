-- Claim an idempotency key for one publish, or tell what became of the key's first request. One round trip.
-- KEYS[1] payment:{payment_id}   ARGV[1] fingerprint   ARGV[2] lease, milliseconds   ARGV[3] remember, milliseconds
-- ARGV[4] 1: only look
-- Answers {'new', until}: publish now, the claim is known by until;
--         {'busy', ms}: another request is publishing for ms more;
--         {'conflict'}: the key belongs to another body; {'published', document}.
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local found = redis.call('HMGET', KEYS[1], 'fingerprint', 'state', 'lease_until_ms', 'document')
if found[1] then
  if found[1] ~= ARGV[1] then
    return {'conflict'}
  end
  if found[2] == 'published' then
    return {'published', found[4]}
  end
  local left_ms = tonumber(found[3] or '0') - now_ms
  -- More than a lease is left where this clock was set back since; nobody waits for that.
  if left_ms > 0 and left_ms <= tonumber(ARGV[2]) then
    return {'busy', left_ms}
  end
end
if ARGV[4] == '1' then
  return {'new', 0}
end
local until_ms = now_ms + ARGV[2]
redis.call('HSET', KEYS[1], 'fingerprint', ARGV[1], 'state', 'publishing', 'lease_until_ms', until_ms)
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return {'new', until_ms}
