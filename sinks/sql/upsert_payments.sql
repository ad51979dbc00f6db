-- Write payments, each only where its version is higher than what stands. Arrays, one a column, in the table's units.
-- A cancel's event holds none of the create's optional words (customer, description, metadata, expiry): what stands is
-- never emptied by it, and where it came first the words are filled in whatever version brings them.
INSERT INTO payments (payment_id, merchant_id, idempotency_key, fingerprint, state, version, amount_minor, currency,
                      payment_method, customer_id, description, metadata, lane, expires_at, attempt, reason,
                      provider_charge_id, accepted_at, updated_at, retry_at, level)
SELECT payment_id, merchant_id, idempotency_key, fingerprint, state, version, amount_minor, currency, payment_method,
       customer_id, description, metadata::jsonb, lane, expires_at, attempt, reason, provider_charge_id, accepted_at,
       updated_at, retry_at, level
FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::int[], $7::bigint[], $8::text[],
            $9::text[], $10::text[], $11::text[], $12::text[], $13::text[], $14::timestamptz[], $15::int[],
            $16::text[], $17::text[], $18::timestamptz[], $19::timestamptz[], $20::timestamptz[],
            $21::int[])
     AS t (payment_id, merchant_id, idempotency_key, fingerprint, state, version, amount_minor, currency,
           payment_method, customer_id, description, metadata, lane, expires_at, attempt, reason, provider_charge_id,
           accepted_at, updated_at, retry_at, level)
ORDER BY payment_id
ON CONFLICT (payment_id) DO UPDATE
SET (state, version, attempt, reason, provider_charge_id, updated_at, retry_at, level) = (
        SELECT newer.state, newer.version, newer.attempt, newer.reason, newer.provider_charge_id, newer.updated_at,
               newer.retry_at, newer.level
        FROM (VALUES (payments.state, payments.version, payments.attempt, payments.reason,
                      payments.provider_charge_id, payments.updated_at, payments.retry_at,
                      payments.level),
                     (excluded.state, excluded.version, excluded.attempt, excluded.reason,
                      excluded.provider_charge_id, excluded.updated_at, excluded.retry_at,
                      excluded.level))
             AS newer (state, version, attempt, reason, provider_charge_id, updated_at, retry_at, level)
        ORDER BY newer.version DESC LIMIT 1),
    customer_id = coalesce(payments.customer_id, excluded.customer_id),
    description = coalesce(payments.description, excluded.description),
    metadata = CASE payments.metadata WHEN '{}' THEN excluded.metadata ELSE payments.metadata END,
    expires_at = coalesce(payments.expires_at, excluded.expires_at)
WHERE excluded.version > payments.version
   OR (payments.customer_id IS NULL AND excluded.customer_id IS NOT NULL)
   OR (payments.description IS NULL AND excluded.description IS NOT NULL)
   OR (payments.metadata = '{}' AND excluded.metadata <> '{}')
   OR (payments.expires_at IS NULL AND excluded.expires_at IS NOT NULL)
