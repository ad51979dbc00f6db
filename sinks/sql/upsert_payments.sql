-- Write payments, each only where its version is higher than what stands. Arrays, one a column, in the table's units.
INSERT INTO payments (payment_id, merchant_id, idempotency_key, fingerprint, state, version, amount_minor, currency,
                      payment_method, customer_id, description, metadata, lane, expires_at, attempt, reason,
                      provider_charge_id, accepted_at, updated_at)
SELECT payment_id, merchant_id, idempotency_key, fingerprint, state, version, amount_minor, currency, payment_method,
       customer_id, description, metadata::jsonb, lane, expires_at, attempt, reason, provider_charge_id, accepted_at,
       updated_at
FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::int[], $7::bigint[], $8::text[],
            $9::text[], $10::text[], $11::text[], $12::text[], $13::text[], $14::timestamptz[], $15::int[],
            $16::text[], $17::text[], $18::timestamptz[], $19::timestamptz[])
     AS t (payment_id, merchant_id, idempotency_key, fingerprint, state, version, amount_minor, currency,
           payment_method, customer_id, description, metadata, lane, expires_at, attempt, reason, provider_charge_id,
           accepted_at, updated_at)
ORDER BY payment_id
ON CONFLICT (payment_id) DO UPDATE
SET state = excluded.state, version = excluded.version, attempt = excluded.attempt, reason = excluded.reason,
    provider_charge_id = excluded.provider_charge_id, updated_at = excluded.updated_at
WHERE excluded.version > payments.version
