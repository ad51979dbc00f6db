-- The trace that an event belongs to, so that an audit trail leads to the caller's own traces.

ALTER TABLE payment_events ADD COLUMN traceparent text;
COMMENT ON COLUMN payment_events.traceparent IS 'W3C trace context of the request that led to the event; null where it named none.';
