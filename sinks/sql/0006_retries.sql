-- When a payment's retry may run, so that who asks is told of it.

ALTER TABLE payments ADD COLUMN retry_at timestamptz;
COMMENT ON COLUMN payments.retry_at IS 'When the retry may run at the earliest; null where none is scheduled.';
