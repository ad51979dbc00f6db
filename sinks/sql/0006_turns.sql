-- What a payment waits for, so that who asks is told when its turn comes: its retry's time, or its place in a queue.

ALTER TABLE payments ADD COLUMN retry_at timestamptz, ADD COLUMN level integer;
COMMENT ON COLUMN payments.retry_at IS 'When the retry may run at the earliest; null where none is scheduled.';
COMMENT ON COLUMN payments.level IS 'Level of the lane''s queues that it waits in until its first call, 0 being the first; else null.';
