-- Put commands into the outbox, all or none: where they do not fit, none is. Arrays, one a column.
-- $1 payment ids, $2 values, $3 headers (JSON), $4 only where an older command of the payment waits, $5 most rows, $6 most bytes.
-- Answers: whether there was room; the places, from 1, of those that were put in.
WITH asked AS (
    SELECT * FROM unnest($1::uuid[], $2::bytea[], $3::text[], $4::boolean[])
                  WITH ORDINALITY AS t (payment_id, value, headers, behind, place)
), due AS (
    SELECT * FROM asked
    WHERE NOT behind OR EXISTS (SELECT FROM outbox WHERE outbox.payment_id = asked.payment_id)
), need AS (
    SELECT count(*) AS rows, coalesce(sum(octet_length(value)), 0) AS bytes FROM due
), room AS (  -- locks the one row until the commit: ids are given in the order of commits
    UPDATE outbox_level SET rows = outbox_level.rows + need.rows, bytes = outbox_level.bytes + need.bytes
    FROM need WHERE need.rows > 0 AND outbox_level.rows + need.rows <= $5::bigint
                    AND outbox_level.bytes + need.bytes <= $6::bigint
    RETURNING 1
), put AS (
    INSERT INTO outbox (payment_id, value, headers)
    SELECT payment_id, value, headers::jsonb FROM due WHERE EXISTS (SELECT FROM room) ORDER BY place
)
SELECT (SELECT rows FROM need) = 0 OR EXISTS (SELECT FROM room) AS room, ARRAY(SELECT place FROM due) AS places
