-- Write events, each once. Arrays, one a column; sent_at_us is epoch microseconds on the limiter's clock.
INSERT INTO payment_events (payment_id, version, type, state, attempt, call, outcome, reason, detail,
                            provider_charge_id, replay_id, lane, at, sent_at_us, topic, partition, "offset",
                            traceparent)
SELECT *
FROM unnest($1::uuid[], $2::int[], $3::text[], $4::text[], $5::int[], $6::text[], $7::text[], $8::text[], $9::text[],
            $10::text[], $11::text[], $12::text[], $13::timestamptz[], $14::bigint[], $15::text[], $16::int[],
            $17::bigint[], $18::text[])
ORDER BY 1, 2
ON CONFLICT (payment_id, version) DO NOTHING
