-- Add requests to a merchant's count of one window, of all processes. One round trip.
-- KEYS[1] rate:{merchant}:seconds:window   KEYS[2] the same of the window before   ARGV[1] requests   ARGV[2] keep, milliseconds
-- Answers {requests of this window, requests of the one before}.
local total = redis.call('INCRBY', KEYS[1], ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return {total, tonumber(redis.call('GET', KEYS[2]) or '0')}
