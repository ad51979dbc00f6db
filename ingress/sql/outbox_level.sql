-- How full the outbox is: rows, bytes, how many of the rows Kafka refuses, age in seconds of the oldest that waits (or null).
SELECT rows, bytes, (SELECT count(*) FROM outbox WHERE refused IS NOT NULL) AS refused,
       (SELECT extract(epoch FROM clock_timestamp() - written_at)::float8
        FROM outbox WHERE refused IS NULL ORDER BY id LIMIT 1) AS oldest_s
FROM outbox_level
