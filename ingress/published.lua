-- Kafka has acknowledged the payment. Writes all fields, so a flush in between heals.
-- KEYS[1] payment:{payment_id}   ARGV[1] fingerprint   ARGV[2] document   ARGV[3] remember, milliseconds
redis.call('HSET', KEYS[1], 'fingerprint', ARGV[1], 'state', 'published', 'document', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 0
