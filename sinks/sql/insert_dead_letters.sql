-- Write dead letters, one a record of origin. Arrays, one a column; original_size is bytes.
INSERT INTO dead_letters (topic, partition, "offset", reason, detail, stage, payment_id, merchant_id, lane, attempts,
                          original, original_size, original_sha256, at)
SELECT *
FROM unnest($1::text[], $2::int[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
            $9::text[], $10::int[], $11::bytea[], $12::bigint[], $13::text[], $14::timestamptz[])
ORDER BY 1, 2, 3
ON CONFLICT (topic, partition, "offset") DO NOTHING
