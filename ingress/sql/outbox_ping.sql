-- Whether the outbox is there.
SELECT FROM outbox, outbox_level LIMIT 0
