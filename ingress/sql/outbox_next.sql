-- The commands that are next in line. $1 at most so many.
SELECT id, payment_id, value, headers::text AS headers FROM outbox WHERE refused IS NULL ORDER BY id LIMIT $1
