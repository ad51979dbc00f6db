-- For analysts: one row a payment, money in major units, durations in seconds. Rests on 0001_payments.sql.
-- first_called_at and finished_at are looked up by primary key, and only where a query asks for what rests on them:
-- the newest event of a final payment may be a refused cancel, so payments.updated_at is not when it ended.

CREATE VIEW payment_status AS
SELECT payment_id, merchant_id, idempotency_key, state, is_final, amount, currency, amount_minor, payment_method,
       customer_id, description, metadata, lane, attempts, reason, provider_charge_id,
       accepted_at, first_called_at, finished_at, expires_at, updated_at,
       round(extract(epoch FROM coalesce(finished_at, now()) - accepted_at), 3) AS age_s,
       round(extract(epoch FROM coalesce(first_called_at, finished_at, now()) - accepted_at), 3) AS queue_s,
       round(extract(epoch FROM coalesce(finished_at, now()) - first_called_at), 3) AS processing_s
FROM (
    SELECT p.payment_id, p.merchant_id, p.idempotency_key, p.state,
           p.state IN ('COMPLETED', 'FAILED', 'CANCELLED') AS is_final,
           round(p.amount_minor / power(10::numeric, c.exponent), c.exponent) AS amount,
           p.currency, p.amount_minor, p.payment_method, p.customer_id, p.description, p.metadata, p.lane,
           p.attempt AS attempts, p.reason, p.provider_charge_id, p.accepted_at, p.expires_at, p.updated_at,
           (SELECT min(e.at) FROM payment_events e
            WHERE e.payment_id = p.payment_id AND e.type = 'call_intended') AS first_called_at,
           CASE WHEN p.state IN ('COMPLETED', 'FAILED', 'CANCELLED') THEN coalesce(
               (SELECT min(e.at) FROM payment_events e
                WHERE e.payment_id = p.payment_id AND e.state = p.state), p.updated_at) END AS finished_at
    FROM payments p
    LEFT JOIN currencies c ON c.code = p.currency
) AS known;
COMMENT ON VIEW payment_status IS 'For analysts: each payment, its amount in major units, how long it waited and took.';
COMMENT ON COLUMN payment_status.payment_id IS 'The payment: UUIDv5 of merchant and idempotency key.';
COMMENT ON COLUMN payment_status.merchant_id IS 'Who is paid.';
COMMENT ON COLUMN payment_status.idempotency_key IS 'The merchant''s own name for the payment.';
COMMENT ON COLUMN payment_status.state IS 'PENDING, PROCESSING, UNKNOWN, REVIEW, COMPLETED, FAILED or CANCELLED.';
COMMENT ON COLUMN payment_status.is_final IS 'Whether the state will not change any more: COMPLETED, FAILED or CANCELLED.';
COMMENT ON COLUMN payment_status.amount IS 'Amount in major units, exact, with the currency''s decimals (12.50 USD, 1250 JPY).';
COMMENT ON COLUMN payment_status.currency IS 'ISO 4217 alphabetic code.';
COMMENT ON COLUMN payment_status.amount_minor IS 'Amount in minor units of the currency (1250 for 12.50 USD).';
COMMENT ON COLUMN payment_status.payment_method IS 'Token of the payment method, never a card number.';
COMMENT ON COLUMN payment_status.customer_id IS 'The merchant''s name for the payer.';
COMMENT ON COLUMN payment_status.description IS 'Free text of the merchant.';
COMMENT ON COLUMN payment_status.metadata IS 'The merchant''s own keys and values.';
COMMENT ON COLUMN payment_status.lane IS 'The provider account that is charged.';
COMMENT ON COLUMN payment_status.attempts IS 'Calls to the provider begun so far.';
COMMENT ON COLUMN payment_status.reason IS 'Machine-readable reason of the state.';
COMMENT ON COLUMN payment_status.provider_charge_id IS 'The provider''s name for the charge.';
COMMENT ON COLUMN payment_status.accepted_at IS 'When the gateway accepted the command.';
COMMENT ON COLUMN payment_status.first_called_at IS 'When the first call to the provider was begun; null before.';
COMMENT ON COLUMN payment_status.finished_at IS 'When the final state was reached; null before.';
COMMENT ON COLUMN payment_status.expires_at IS 'Past it the payment fails as expired, if it was never sent.';
COMMENT ON COLUMN payment_status.updated_at IS 'When the newest event happened, a refused cancel of a finished payment too.';
COMMENT ON COLUMN payment_status.age_s IS 'Seconds from acceptance to the final state, or until now.';
COMMENT ON COLUMN payment_status.queue_s IS 'Seconds from acceptance to the first call, or to the end without one, or until now.';
COMMENT ON COLUMN payment_status.processing_s IS 'Seconds from the first call to the final state, or until now; null before the first call.';
