-- The publish of a claim failed: the next request with this key and body may try at once. The key stays with its body,
-- because Kafka may have stored the record all the same.
-- KEYS[1] payment:{payment_id}   ARGV[1] the claim, as claim.lua named it: another's later claim is left alone
local found = redis.call('HMGET', KEYS[1], 'state', 'lease_until_ms')
if found[1] == 'publishing' and found[2] == ARGV[1] then
  redis.call('HSET', KEYS[1], 'lease_until_ms', 0)
end
return 0
