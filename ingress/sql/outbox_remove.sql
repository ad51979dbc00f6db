-- Take commands out that Kafka has. $1 ids.
WITH gone AS (
    DELETE FROM outbox WHERE id = ANY($1::bigint[]) RETURNING octet_length(value) AS size
)
UPDATE outbox_level SET rows = rows - (SELECT count(*) FROM gone), bytes = bytes - (SELECT coalesce(sum(size), 0) FROM gone)
