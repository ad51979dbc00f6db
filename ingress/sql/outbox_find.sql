-- The first command of each of these payments that waits in the outbox. $1 payment ids.
SELECT DISTINCT ON (payment_id) payment_id, value FROM outbox WHERE payment_id = ANY($1::uuid[]) ORDER BY payment_id, id
